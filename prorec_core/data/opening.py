"""How a file's bytes reach the readers: decompressed by its suffix, and in UTF-8 where they are in Latin-1.

Knows suffixes, compression and encodings. Knows nothing of lines, fields or where files are found.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import pyarrow as pa

from prorec_core.errors import UserError

Opener = Callable[[], BinaryIO]
"""Opens a file's bytes at their beginning; once for each pass over them."""
COMPRESSED = (".gz", ".zst")
"""Suffixes that may stand after that of a format of text."""
DAMAGED = (EOFError, zlib.error, OSError)
"""What reading a compressed file raises where it is cut or damaged; an OSError of the system has a `strerror`."""

_PIECE = 1 << 20
_LONGEST_LINE = 256 << 20


def format_of(path: Path) -> str:
    """The suffix that names a file's format, in small letters, with that of its compression: `.csv`, `.csv.gz`."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last in COMPRESSED else last


def bare(suffix: str) -> str:
    """A format's suffix without that of a compression."""
    return next((suffix.removesuffix(each) for each in COMPRESSED if suffix.endswith(each)), suffix)


def stem_of(path: Path) -> str:
    """A file's name without its format."""
    return path.name[: len(path.name) - len(format_of(path))] if format_of(path) else path.name


def opener(path: Path) -> Opener:
    """Opens the file, decompressed on the way where its suffix says that it is compressed.

    Raises:
        UserError: when opened: it is not compressed as its suffix says.
    """
    match path.suffix.lower():
        case ".gz":
            return lambda: cast(BinaryIO, gzip.open(_begins(path, rb"\x1f\x8b"), "rb"))
        case ".zst":
            # A file may begin with a frame that is to be skipped.
            return lambda: cast(BinaryIO, _Decompressed(_begins(path, rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")))
    return lambda: path.open("rb")


def _begins(path: Path, mark: bytes) -> Path:
    """The path of a file that is empty, or begins so."""
    with path.open("rb") as file:
        head = file.read(4)
    if head and not re.match(mark, head, re.DOTALL):
        packed = path.suffix
        raise UserError(
            f"it is not compressed as its suffix {packed} says",
            place=str(path),
            cure=f"Take {packed} off its name, or fetch it again",
        )
    return path


def refuse_damaged(error: Exception, place: str, line: int) -> NoReturn:
    """Say that a compressed file is cut or damaged, and up to where it was read.

    Raises:
        UserError: always; the error itself where it is the system's and not the archive's.
    """
    if isinstance(error, OSError) and error.strerror:
        raise error
    said = " ".join(str(error).split())
    raise UserError(
        f"the compressed file is cut or damaged after line {line - 1:,} ({said})",
        place=place,
        cure="Copy or fetch it again",
    ) from error


class _Decompressed(io.BufferedReader):
    """A Zstandard file as it was before, whatever number of frames it has."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        stream: Any = pa.CompressedInputStream(self._file, "zstd")
        super().__init__(stream)

    def close(self) -> None:
        super().close()
        self._file.close()


class _Changed(io.BufferedIOBase):
    """A file of which whole lines are changed on the way; `read` may give more than was asked for."""

    def __init__(self, file: BinaryIO, change: Callable[[bytes], bytes]) -> None:
        self._file, self._change = file, change

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._file.read(-1 if size is None else size)
        if data and not data.endswith(b"\n"):
            data += self._file.readline(_LONGEST_LINE)
        return self._change(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def changed(open_file: Opener, change: Callable[[bytes], bytes]) -> Opener:
    """Opens the same file with `change` applied to its lines, some whole ones at a time."""
    return lambda: cast(BinaryIO, _Changed(open_file(), change))


def in_utf8(open_file: Opener, place: str) -> Opener:
    """Opens a file that is in UTF-8, or else in Latin-1, in UTF-8.

    What it is in is looked up when it is first opened, in one pass over it.

    Raises:
        UserError: when opened: some of its lines are in one and some in the other.
    """
    latin: list[bool] = []

    def opened() -> BinaryIO:
        if not latin:
            latin.append(_is_latin(open_file, place))
        return changed(open_file, _from_latin)() if latin[0] else open_file()

    return opened


def _from_latin(data: bytes) -> bytes:
    return data.decode("latin-1").encode()


def _is_latin(open_file: Opener, place: str) -> bool:
    utf8 = latin = 0
    number = 1
    with changed(open_file, bytes)() as file:
        while data := file.read(_PIECE):
            if not data.isascii():
                for line, text in enumerate(data.split(b"\n"), start=number):
                    if text.isascii():
                        continue
                    try:
                        text.decode()
                        utf8 = utf8 or line
                    except UnicodeDecodeError:
                        latin = latin or line
            number += data.count(b"\n")
    if utf8 and latin:
        two_encodings(place, utf8, latin)
    return latin > 0


def two_encodings(place: str, utf8: int, other: int) -> NoReturn:
    """Refuse a file of which one line is in UTF-8 and another is not.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"the file is in two encodings: line {utf8:,} is UTF-8, and line {other:,} is not",
        place=place,
        cure="Convert what it was put together from, each part from its own encoding, for example with `iconv`",
    )
