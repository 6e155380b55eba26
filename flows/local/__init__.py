"""Runs in this process, without servers of the user's own."""
