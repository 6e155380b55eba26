"""The formats of files by their suffixes, and a table of any of them.

Knows suffixes and readers. Knows nothing of how files are found or of what columns mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from prorec_core.data.arrow import ArrowReader
from prorec_core.data.delimited import DelimitedReader
from prorec_core.data.json_lines import JsonLinesReader
from prorec_core.data.opening import COMPRESSED, Opener, bare, format_of, opener
from prorec_core.data.parquet import ParquetReader
from prorec_core.data.quotes import Dialect
from prorec_core.data.tables import RawTable, Reader, reading
from prorec_core.errors import UserError


@dataclass(frozen=True)
class TextRules:
    """What a delimited file's quotes mean, and the settings that say so, for messages."""

    quotes: bool = True
    multiline: bool = False
    quotes_setting: str = "data.quotes=false"
    multiline_setting: str = "data.multiline=true"


RULES = TextRules()
"""Those of RFC 4180."""


def table_of(path: Path, rules: TextRules = RULES) -> RawTable:
    """A table of one of the generic formats, read when it is asked for.

    Raises:
        UserError: there is no such file, or its suffix is of no such format.
    """
    if format_of(path) not in TABLES:
        raise UserError("a file of this kind is not read", place=str(path), cure=f"Give one that {ends_in(TABLES)}")
    if not is_file(path):
        raise UserError("there is no such file", place=str(path), cure="Check the name")
    return open_file(path, rules)


def open_file(path: Path, rules: TextRules) -> RawTable:
    """A table in a file whose suffix is known.

    Files are opened by this program and handed to libraries as bytes: no name is a pattern, a URL or a home folder.
    """
    place, make = str(path), READERS[format_of(path)]
    return RawTable(make(opener(path), place, rules), place)


def is_file(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        UserError: no file can have the name, or the folder may not be looked into.
    """
    with reading(str(path)):
        return path.is_file()


def ends_in(suffixes: Iterable[str]) -> str:
    """Which files are of these formats, for a cure: how their names end."""
    plain = dict.fromkeys(bare(suffix) for suffix in suffixes)
    packed = any(suffix != bare(suffix) for suffix in suffixes)
    return f"ends in {', '.join(plain)}" + (f" (texts also with {' or '.join(COMPRESSED)} after it)" if packed else "")


def _delimited(separator: str) -> MakeReader:
    def make(open_file: Opener, place: str, rules: TextRules) -> Reader:
        return DelimitedReader(open_file, place, Dialect(separator, **vars(rules)))

    return make


def _atomic(open_file: Opener, place: str, rules: TextRules) -> Reader:
    """RecBole's atomic file: tab-separated, without quotes, a header of `name:type`; columns lose their type."""
    del rules
    return DelimitedReader(open_file, place, Dialect("\t", quotes=False), typed_header=True)


def _json_lines(open_file: Opener, place: str, rules: TextRules) -> Reader:
    del rules
    return JsonLinesReader(open_file, place)


def _json(open_file: Opener, place: str, rules: TextRules) -> Reader:
    """Files of objects that end in .json are JSON Lines, or were written by Python as it shows its dictionaries."""
    del rules
    return JsonLinesReader(open_file, place, python=True)


def _parquet(open_file: Opener, place: str, rules: TextRules) -> Reader:
    del place, rules
    return ParquetReader(open_file)


def _arrow(open_file: Opener, place: str, rules: TextRules) -> Reader:
    del rules
    return ArrowReader(open_file, place)


MakeReader = Callable[[Opener, str, TextRules], Reader]


def _also_packed(texts: dict[str, MakeReader]) -> dict[str, MakeReader]:
    return {suffix + packed: make for suffix, make in texts.items() for packed in ("", *COMPRESSED)}


TABLES: dict[str, MakeReader] = {
    ".parquet": _parquet,
    **_also_packed(
        {
            ".csv": _delimited(","),
            ".tsv": _delimited("\t"),
            ".jsonl": _json_lines,
            ".ndjson": _json_lines,
            ".json": _json,
        }
    ),
    ".arrow": _arrow,
    ".feather": _arrow,
}
"""Readers of the generic formats by the suffix of the file."""
ATOMIC: dict[str, MakeReader] = _also_packed({".inter": _atomic, ".item": _atomic})
"""Readers of RecBole's files."""
READERS = {**TABLES, **ATOMIC}
