"""A tuning's trials, and what it leaves."""
