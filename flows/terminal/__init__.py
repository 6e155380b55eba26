"""What people see in a terminal. Knows nothing of what is shown."""
