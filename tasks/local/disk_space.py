"""File systems without room: which errors come of one, and which folder it is.

Knows the errors of files, of databases, and of servers that write to disks of this machine; knows nothing of who tells
them.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from prorec.tasks.local import paths
from prorec_core.errors import MachineError, UserError, causes

_NUMBERS = {errno.ENOSPC, errno.EDQUOT}
_SAID = ("no space left on device", "database or disk is full", "disk quota exceeded")
_PERHAPS = ("disk i/o error", "unable to open database file", "no usable temporary directory")
"""What SQLite and Python say of a full disk, and of other things too."""

_HARDLY_ANY = 2**20
_CURE = "Make room there, then give the same command again: what was finished is kept"


@dataclass(frozen=True)
class Disk:
    """A file system as seen from a folder; `files` is how many more it takes, `total` its size in bytes."""

    folder: Path
    free: int
    total: int
    files: int

    @classmethod
    def of(cls, path: Path) -> Disk:
        """That of a file or folder, or of the nearest folder above it that exists."""
        folder = path.absolute()
        while not os.path.isdir(folder) and folder != folder.parent:  # noqa: PTH112 pathlib's raises
            folder = folder.parent
        found = os.statvfs(folder)
        # Some file systems have no limit on files and say 0 of 0.
        files = found.f_favail if found.f_files else found.f_blocks
        return cls(folder, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, files)

    @property
    def is_full(self) -> bool:
        """Whether it has room for hardly anything."""
        return self.free < _HARDLY_ANY or self.files == 0

    @property
    def mounted(self) -> Path:
        """Where it begins."""
        return next(place for place in (self.folder, *self.folder.parents) if place.is_mount())

    def __str__(self) -> str:
        if self.files == 0:
            return "it takes no more files"
        return f"{_mebibytes(self.free)} of {_mebibytes(self.total)} MiB are free"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f}"


def _no_room(error: BaseException) -> MachineError | None:
    """In one line which disk has no room left, if this one error, whatever caused it, says so; None if it does not."""
    if isinstance(error, UserError) or not isinstance(error, Exception):
        return None
    said = str(error).lower()
    is_certain = (isinstance(error, OSError) and error.errno in _NUMBERS) or any(words in said for words in _SAID)
    if not is_certain and not _server_failed(error) and not any(words in said for words in _PERHAPS):
        return None
    disk = _fullest(_named(error) or _written_to())
    if not disk.is_full:
        if not is_certain:
            return None
        if _server_failed(error) and paths.tracks_over_http():
            place = paths.shown_uri(paths.tracking_uri())
            return MachineError("the disk of the tracking server is full", place=place, cure=_CURE)
    is_quota = (isinstance(error, OSError) and error.errno == errno.EDQUOT) or "disk quota exceeded" in said
    return _error(disk, "its quota is used up on" if is_quota else "no room is left on")


def _error(disk: Disk, what: str = "no room is left on") -> MachineError:
    return MachineError(f"{what} the disk mounted at {disk.mounted} ({disk})", place=str(disk.folder), cure=_CURE)


def _fullest(folders: list[Path]) -> Disk:
    return min(map(Disk.of, folders), key=lambda each: (each.files > 0, each.free))


def full_disk(error: BaseException) -> MachineError | None:
    """In one line which disk has no room left, if an error or one of its causes comes of that."""
    return next(filter(None, map(_no_room, causes(error))), None)


def no_room_now() -> MachineError | None:
    """In one line which of the disks that are written to has room for hardly anything; None if all have more."""
    disk = _fullest(_written_to())
    return _error(disk) if disk.is_full else None


def _named(error: Exception) -> list[Path]:
    """The file that was to be written, where the error names it; of two it is the second."""
    if not isinstance(error, OSError):
        return []
    names = [name for name in (error.filename2, error.filename) if isinstance(name, str | bytes | Path) and name]
    return [Path(os.fsdecode(names[0]))] if names else []


def _written_to() -> list[Path]:
    """The folders that are written to."""
    temporary = next((os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)), "/tmp")
    database = paths.sqlite_path(paths.tracking_uri())
    return [paths.artifacts(), Path(temporary), *([database.parent] if database else [])]


def _server_failed(error: Exception) -> bool:
    """Whether a server answered that something is wrong with itself."""
    if callable(status := getattr(error, "get_http_status_code", None)):
        return hasattr(error, "json") and int(status()) >= 500
    return int(getattr(getattr(error, "response", None), "status_code", None) or 0) >= 500
