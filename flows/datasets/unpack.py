"""Archives unpacked into a folder of their own: plain files alone, none outside of it, none larger than it says.

Knows zip and tar. Knows nothing of what is in the files. An archive within an archive is unpacked too, one level deep.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from prorec_core.errors import MachineError, UserError

_PIECE = 1 << 20
_MOST_FILES = 10_000
_AGAIN = "Delete it and fetch it again"
_LEFT_FREE = 256 << 20
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2")
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, RuntimeError, NotImplementedError),
)


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive."""
    return name.lower().endswith(_ARCHIVES)


def unpack(archive: Path, folder: Path, most: int) -> list[Path]:
    """Unpack an archive; the folder is there whole or not at all, and replaces what was there.

    Args:
        archive: a zip or tar file.
        folder: where its files go.
        most: bytes that they may have together, those of archives within it and what is in these too.

    Returns:
        The files, in the order of their paths.

    Raises:
        UserError: it is damaged, holds what is no plain file or lies outside, or is larger than allowed.
        MachineError: there is no room.
    """
    begun = folder.with_name(f".{folder.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    room = _Room(most)
    try:
        _unpack(archive, begun, room)
        for inner in sorted(path for path in begun.rglob("*") if path.is_file() and is_archive(path.name)):
            _unpack(inner, inner.parent, room)
            inner.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        begun.rename(folder)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


@dataclass
class _Room:
    """What may still be unpacked of `most` bytes and of all files, over an archive and those within it."""

    most: int
    used: int = 0
    files: int = 0

    def take(self, size: int, folder: Path, place: str) -> None:
        """Have room for one more file."""
        self.used += size
        self.files += 1
        if self.files > _MOST_FILES:
            raise UserError(f"it holds more than {_MOST_FILES:,} files", place=place, cure="Unpack it by hand")
        if self.used > self.most:
            raise UserError(f"its files have more than {self.most:,} bytes", place=place, cure="Unpack it by hand")
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if size > shutil.disk_usage(there).free - _LEFT_FREE:
            raise MachineError("there is no room to unpack it", place=place, cure="Make room on the disk")


def _unpack(archive: Path, folder: Path, room: _Room) -> None:
    place = str(archive)
    try:
        for name, size, opened in _members(archive):
            room.take(size, folder, place)
            path = folder / _inside(name, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened as source, path.open("xb") as target:
                _copy(source, target, size, name, place)
    except FileExistsError as error:
        raise UserError(
            f"it holds a file twice: {Path(str(error.filename)).name}", place=place, cure="Unpack it by hand"
        ) from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        raise UserError(f"the archive is damaged ({error})", place=place, cure=_AGAIN) from error


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of each plain file."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if not info.is_dir():
                    _plain(kind in {0, stat.S_IFREG} and not info.flag_bits & 1, info.filename, archive)
                    yield info.filename, info.file_size, packed.open(info)
        return
    with tarfile.open(archive, "r|*") as stream:
        for member in stream:
            if not member.isdir():
                _plain(member.isreg(), member.name, archive)
                content = stream.extractfile(member)
                assert content is not None
                yield member.name, member.size, content


def _plain(is_plain: bool, name: str, archive: Path) -> None:
    if not is_plain:
        raise UserError(
            f"it holds what is no plain file: {name}", place=str(archive), cure="Unpack by hand what you trust"
        )


def _inside(name: str, place: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    odd = path.is_absolute() or ".." in path.parts or not path.name or ":" in path.parts[0] or "\0" in name
    if odd or len(name) > 1000:
        raise UserError(f"it holds a file that lies outside: {name}", place=place, cure="Unpack by hand what you trust")
    return path


def _copy(source: IO[bytes], target: IO[bytes], size: int, name: str, place: str) -> None:
    done = 0
    while piece := source.read(_PIECE):
        done += len(piece)
        if done > size:
            break
        target.write(piece)
    if done != size:
        raise UserError(f"{name} in it has not the {size:,} bytes that it says", place=place, cure=_AGAIN)
