"""Paths as users give them. Knows names of files and home folders; knows nothing of what is in files."""

from __future__ import annotations

from pathlib import Path


def path_of(given: str) -> Path:
    """A path as a user gave it; `~` or `~name` at its beginning is a home folder where there is one."""
    path = Path(given)
    try:
        # "~" is the home folder and "./~" a folder of this name; to `Path` they are the same.
        return path.expanduser() if given.startswith("~") else path
    except RuntimeError:
        return path
