"""This machine: folders, databases, processes, signals, and what it may refuse. Knows no run's meaning."""
