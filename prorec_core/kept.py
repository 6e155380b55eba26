"""Long work in pieces: who makes them, and those that are finished in a folder, until all are there.

Whatever kills the work, the next try goes on with them. Knows names, bytes and files; knows nothing of what a piece
is. A file's name holds what the piece is made of and the hash of its bytes, so that neither old nor damaged pieces are
taken.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prorec_core.artifacts import sha256_file, write_bytes

Make = Callable[[Any], Any]
"""Makes a piece of what it is told of it."""
Open = Callable[[], Make]
"""Makes ready, here or in another process: the function of a module, or a `partial` of one."""
Making = Callable[[Iterator[tuple[str, Any]]], Iterator[tuple[str, Any]]]
"""Takes what pieces are to be made of, by name, as fast as it can make them; gives them by name, in whatever order."""
_log = logging.getLogger(__name__)


def find_piece(folder: Path, key: str, suffix: str) -> Path | None:
    """The file of a piece that is there and whole; what was damaged is removed.

    Args:
        folder: of the pieces; need not exist.
        key: equal for two pieces that must be equal; hexadecimal text.
        suffix: of the file's name.
    """
    for path in folder.glob(f"{key}-*{suffix}"):
        if sha256_file(path) == path.stem.rpartition("-")[2]:
            return path
        _log.warning("%s: a finished piece was damaged and is made again", path)
        path.unlink()
    return None


def keep_piece(folder: Path, key: str, suffix: str, content: bytes) -> Path:
    """Write a piece, whole or not at all; the arguments are those of `find_piece`, and the piece's bytes."""
    path = folder / f"{key}-{hashlib.sha256(content).hexdigest()}{suffix}"
    write_bytes(path, content)
    return path
