"""Text files block by block: whole lines, their numbers, and whether they are UTF-8.

Knows bytes, encodings and line ends. Knows nothing of fields, quotes or JSON.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from prorec_core.data.opening import DAMAGED, Opener, refuse_damaged, two_encodings
from prorec_core.errors import UserError

_SIZE = 4 << 20
_LONGEST_LINE = 256 << 20
_NEWLINE = ord("\n")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CONVERT = "Convert it, for example with `iconv -f {} -t UTF-8`"
_BEGINNINGS = (
    (0, b"\x1f\x8b", "compressed by gzip", "Unpack it, or let its name end in .gz, after the format's suffix"),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "compressed by Zstandard",
        "Unpack it, or let its name end in .zst, after the format's suffix",
    ),
    (0, b"\xfd7zXZ\0", "compressed by xz", "Unpack it, for example with `unxz`"),
    (4, b"1AY&SY", "compressed by bzip2", "Unpack it, for example with `bunzip2`"),
    (0, b"PK\3\4", "a ZIP archive or an Excel workbook", "Unpack it, or save the sheet as CSV in UTF-8"),
    (0, b"\xd0\xcf\x11\xe0", "an Excel workbook", "Save the sheet as CSV in UTF-8"),
    (0, b"PAR1\x15", "a Parquet file", "Let its name end in .parquet"),
    (0, b"ARROW1\0", "an Arrow file", "Let its name end in .arrow"),
    (0, b"SQLite format 3\0", "an SQLite database", "Write its tables as Parquet or CSV"),
)
"""What a file that is no text may be: by which bytes, where they stand, what it is, and what to do."""


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file; only the file's last one may lack its line end."""

    data: bytes
    first_line: int
    """Number of its first line in the file, counted from 1."""
    offset: int
    """Where it begins in the file, in bytes."""

    @cached_property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """`data` as numbers."""
        return np.frombuffer(self.data, np.uint8)

    @cached_property
    def line_ends(self) -> int:
        """How many line ends it holds."""
        return int(np.count_nonzero(self.bytes == _NEWLINE))

    def line_at(self, position: int) -> int:
        """Number of the line that a position of `data` is in."""
        return self.first_line + self.data.count(b"\n", 0, position)


def blocks(open_file: Opener, place: str, size: int = _SIZE) -> Iterator[Block]:
    """A file's lines in blocks of about `size` bytes, or of one line that is longer; a byte order mark is left out.

    Raises:
        UserError: what is there is no UTF-8, holds NUL bytes, or is a compressed file that is cut (names the line).
    """
    with open_file() as file:
        rest, line, offset, step = b"", 1, 0, size
        beyond_ascii = 0
        head = _read(file, len(codecs.BOM_UTF8), place, line)
        if head.startswith(_UTF16):
            _fail(place, "the file is UTF-16 and not UTF-8", "UTF-16")
        if head == codecs.BOM_UTF8:
            head, offset = b"", len(head)
        while True:
            read = head + _read(file, step, place, line)
            head = b""
            end = read.rfind(b"\n") + 1
            if read and not end:
                rest += read
                if len(rest) > _LONGEST_LINE:
                    _fail(place, f"line {line:,} has more than {_LONGEST_LINE >> 20} MB", "")
                # Twice as much each time: a line as long as the file must not be copied once a block.
                step *= 2
                continue
            data = rest + read[:end] if read else rest
            if not data:
                return
            block = Block(data, line, offset)
            try:
                beyond_ascii = _check(block, place, beyond_ascii)
            except UserError:
                if block.first_line == 1:
                    _refuse_other(open_file, place)
                raise
            yield block
            if not read:
                return
            rest, step = read[end:], size
            line += block.line_ends
            offset += len(data)


def _read(file: BinaryIO, size: int, place: str, line: int) -> bytes:
    try:
        return file.read(size)
    except DAMAGED as error:
        refuse_damaged(error, place, line)


def _check(block: Block, place: str, beyond_ascii: int) -> int:
    """Refuse what is no text; the first line with more than ASCII, 0 where there is none, is given and given back."""
    nul = block.data.find(b"\0")
    if nul >= 0:
        # Half the bytes of UTF-16 that holds plain letters are NUL.
        wide = block.data.count(b"\0", 0, 1000) > len(block.data[:1000]) // 4
        said = "the file seems to be UTF-16 and not UTF-8" if wide else f"line {block.line_at(nul):,} holds a NUL byte"
        _fail(place, said, "UTF-16" if wide else "")
    if block.data.isascii():
        return beyond_ascii
    try:
        codecs.utf_8_decode(block.data, "strict", True)
    except UnicodeDecodeError as error:
        line, byte = block.line_at(error.start), block.data[error.start]
        if known := beyond_ascii or _beyond_ascii(block, error.start):
            two_encodings(place, known, line)
        _fail(place, f"line {line:,} is not UTF-8 (byte 0x{byte:02x}; perhaps Latin-1 or Windows-1252)", "WINDOWS-1252")
    return beyond_ascii or _beyond_ascii(block, len(block.data))


def _refuse_other(open_file: Opener, place: str) -> None:
    """Say what a file that is no text is, where its first bytes tell."""
    with open_file() as file:
        head = file.read(16)
    for position, told_by, what, cure in _BEGINNINGS:
        if head.startswith(told_by, position):
            raise UserError(f"the file is {what}, and not text", place=place, cure=cure)


def _beyond_ascii(block: Block, end: int) -> int:
    """The first line with more than ASCII before a position; 0 where there is none."""
    found = np.flatnonzero(block.bytes[:end] >= 0x80)
    return block.line_at(int(found[0])) if len(found) else 0


def _fail(place: str, problem: str, encoding: str) -> None:
    raise UserError(
        problem, place=place, cure=_CONVERT.format(encoding) if encoding else "Take it out, or check how it was written"
    )
