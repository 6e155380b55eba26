"""Registered models: found, promoted, and asked for recommendations."""
