"""How large folders are and when they were changed, while others write there. Knows files and folders."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def states(path: Path) -> Iterator[os.stat_result]:
    """What the system says of a file, or of a folder and all below it; what goes meanwhile is passed over."""
    with contextlib.suppress(FileNotFoundError):
        yield path.stat()
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                yield Path(parent, name).lstat()


def changed(path: Path) -> float:
    """When a file, or anything of a folder, was changed last, in seconds since 1970; 0 where there is nothing."""
    return max((found.st_mtime for found in states(path)), default=0.0)


def written(folder: Path) -> float:
    """When a file of a folder was written last, in seconds since 1970; 0 where there is none, whatever was removed."""
    return max((found.st_mtime for found in states(folder) if stat.S_ISREG(found.st_mode)), default=0.0)
