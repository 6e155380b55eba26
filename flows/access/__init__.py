"""Who may talk to a server: secrets, guards, proxies."""
