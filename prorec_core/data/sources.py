"""Where raw tables come from: the demo shop, generic tables, RecBole's atomic files.

Knows file names and formats. Knows nothing of what columns mean or of what is kept of their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from prorec_core.artifacts import sha256_file, sha256_json
from prorec_core.config_data import DataConfig, DemoShop
from prorec_core.data.delimited import DelimitedReader
from prorec_core.data.demo import DemoData, make_demo_shop
from prorec_core.data.json_lines import JsonLinesReader
from prorec_core.data.lines import Opener
from prorec_core.data.parquet import ParquetReader
from prorec_core.data.parts import PartsReader, is_pattern, matching
from prorec_core.data.quotes import Dialect
from prorec_core.data.tables import RawTable, Reader, reading
from prorec_core.errors import UserError
from prorec_core.registry import SOURCES


class Source(Protocol):
    """One place that data come from."""

    def interactions(self) -> RawTable:
        """Who took which item when."""
        ...

    def items(self) -> RawTable:
        """The items and their texts."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the source knows about itself, for the profile."""
        ...

    def digest(self) -> str:
        """Hex sha256 that changes whenever the data could."""
        ...


def open_source(config: DataConfig) -> Source:
    """The source that the configuration names; its files are found, not yet read.

    Raises:
        UserError: no path, no such folder or file, or more than one file that could be meant.
    """
    found: Source = SOURCES.load(config.source)(config)
    return found


def demo_shop(config: DataConfig) -> Source:
    """The generated shop."""
    return DemoSource(config.demo)


def two_files(config: DataConfig) -> Source:
    """A file of interactions and one of items, of the formats that the source's name stands for; as `open_source`."""
    if config.path is None:
        raise UserError(
            f"the source '{config.source}' needs a folder", place="data.path", cure="Set data.path to the folder"
        )
    folder = _folder(config.path)
    names, suffixes, other = _KINDS[config.source]
    with reading(str(folder)):
        found = [
            _find(folder, given, setting, stem, suffixes=suffixes, other=other)
            for given, setting, stem in (
                (config.interactions_file, "interactions_file", names[0]),
                (config.items_file, "items_file", names[1]),
            )
        ]
    return FileSource(folder, found[0], found[1], TextRules(config.quotes, config.multiline))


@dataclass(frozen=True)
class DemoSource:
    """The generated shop."""

    config: DemoShop

    def interactions(self) -> RawTable:
        return RawTable.of_frame(self._shop.interactions, "the demo shop's interactions")

    def items(self) -> RawTable:
        return RawTable.of_frame(self._shop.items, "the demo shop's items")

    def facts(self) -> dict[str, Any]:
        return {"demo": self._shop.facts}

    def digest(self) -> str:
        return sha256_json(self.config.model_dump())

    @cached_property
    def _shop(self) -> DemoData:
        return make_demo_shop(self.config)


@dataclass(frozen=True)
class TextRules:
    """What a delimited file's quotes mean, and the settings that say so, for messages."""

    quotes: bool = True
    multiline: bool = False
    quotes_setting: str = "data.quotes=false"
    multiline_setting: str = "data.multiline=true"


RULES = TextRules()
"""Those of RFC 4180."""


@dataclass(frozen=True)
class Files:
    """One file, or those that a pattern means."""

    path: Path
    """The file, or the pattern."""
    parts: tuple[Path, ...] | None = None
    """The files of a pattern in their order."""

    def digest(self) -> list[Any]:
        """Suffix and content."""
        found = []
        for file in self.parts or (self.path,):
            with reading(str(file)):
                found.append(sha256_file(file))
        return [self.path.suffix.lower(), found[0] if self.parts is None else found]


@dataclass(frozen=True)
class FileSource:
    """Two files or patterns in a folder, each read by the reader that its suffix names."""

    folder: Path
    interactions_files: Files
    items_files: Files
    rules: TextRules

    def interactions(self) -> RawTable:
        return self._open(self.interactions_files)

    def items(self) -> RawTable:
        return self._open(self.items_files)

    def facts(self) -> dict[str, Any]:
        """Names alone: the same rows in more files are the same data."""
        return {"files": [self._name(files) for files in (self.interactions_files, self.items_files)]}

    def digest(self) -> str:
        return sha256_json([files.digest() for files in (self.interactions_files, self.items_files)])

    def _open(self, files: Files) -> RawTable:
        if files.parts is None:
            return open_file(files.path, self.rules)
        reader = PartsReader(self.folder, files.parts, lambda file: open_file(file, self.rules))
        return RawTable(reader, str(files.path))

    def _name(self, files: Files) -> str:
        if files.parts is None or not files.path.is_relative_to(self.folder):
            return files.path.name
        return files.path.relative_to(self.folder).as_posix()


def table_of(path: Path, rules: TextRules = RULES) -> RawTable:
    """A table of one of the generic formats, read when it is asked for.

    Raises:
        UserError: there is no such file, or its suffix is of no such format.
    """
    if path.suffix.lower() not in TABLES:
        raise UserError(
            "a file of this kind is not read", place=str(path), cure=f"Give one that ends in {', '.join(TABLES)}"
        )
    if not is_file(path):
        raise UserError("there is no such file", place=str(path), cure="Check the name")
    return open_file(path, rules)


def open_file(path: Path, rules: TextRules) -> RawTable:
    """A table in a file whose suffix is known.

    Files are opened by this program and handed to libraries as bytes: no name is a pattern, a URL or a home folder.
    """
    place, make = str(path), READERS[path.suffix.lower()]
    return RawTable(make(lambda: path.open("rb"), place, rules), place)


def _delimited(separator: str) -> MakeReader:
    def make(opener: Opener, place: str, rules: TextRules) -> Reader:
        return DelimitedReader(opener, place, Dialect(separator, **vars(rules)))

    return make


def _atomic(opener: Opener, place: str, rules: TextRules) -> Reader:
    """RecBole's atomic file: tab-separated, without quotes, a header of `name:type`; columns lose their type."""
    del rules
    return DelimitedReader(opener, place, Dialect("\t", quotes=False), typed_header=True)


def _json_lines(opener: Opener, place: str, rules: TextRules) -> Reader:
    del rules
    return JsonLinesReader(opener, place)


def _parquet(opener: Opener, place: str, rules: TextRules) -> Reader:
    del place, rules
    return ParquetReader(opener)


MakeReader = Callable[[Opener, str, TextRules], Reader]
TABLES: dict[str, MakeReader] = {
    ".parquet": _parquet,
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
"""Readers of the generic formats by the suffix of the file."""
ATOMIC: dict[str, MakeReader] = {".inter": _atomic, ".item": _atomic}
"""Readers of RecBole's files."""
READERS = {**TABLES, **ATOMIC}

_KINDS: dict[str, tuple[tuple[str, str], tuple[str, ...], str]] = {
    "tables": (("interactions", "items"), tuple(TABLES), "recbole"),
    "recbole": ((".inter", ".item"), tuple(ATOMIC), "tables"),
}


def _folder(given: str) -> Path:
    """The folder that is meant: a path as it is, `~` at its beginning being the home folder."""
    folder = path_of(given)
    with reading(str(folder)):
        if folder.is_dir():
            return folder
    if "://" in given:
        raise UserError("URLs are not read", place=f"data.path={given}", cure="Copy the data and name their folder")
    raise UserError(
        "this is a file and no folder" if is_file(folder) else "there is no such folder",
        place=str(folder),
        cure="Set data.path to the folder of the data",
    )


def path_of(given: str) -> Path:
    """A path as a user gave it; `~` or `~name` at its beginning is a home folder where there is one."""
    path = Path(given)
    try:
        # "~" is the home folder and "./~" a folder of this name; to `Path` they are the same.
        return path.expanduser() if given.startswith("~") else path
    except RuntimeError:
        return path


def is_file(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        UserError: no file can have the name, or the folder may not be looked into.
    """
    with reading(str(path)):
        return path.is_file()


def _find(folder: Path, given: str | None, setting: str, stem: str, *, suffixes: tuple[str, ...], other: str) -> Files:
    if given is not None:
        path = folder / given
        if path.suffix.lower() not in suffixes:
            raise UserError(
                f"a file of this kind is not read here (data.{setting})",
                place=str(path),
                cure=f"Give a file that ends in {', '.join(suffixes)}, or set data.source={other}",
            )
        if is_file(path):
            return Files(path)
        if is_pattern(given):
            return Files(path, tuple(matching(folder, given)))
        raise UserError("there is no such file", place=str(path), cure=f"Set data.{setting} to {_present(folder)}")
    files = [path for path in folder.iterdir() if path.is_file()]
    if stem.startswith("."):
        found, sought = sorted(path for path in files if path.suffix == stem), f"*{stem}"
    else:
        names = [stem + suffix for suffix in suffixes]
        found, sought = sorted(path for path in files if path.name in names), " or ".join(names)
    if len(found) == 1:
        return Files(found[0])
    if found:
        raise UserError(
            f"several files could be meant: {', '.join(path.name for path in found)}",
            place=str(folder),
            cure=f"Name one in data.{setting}",
        )
    raise UserError(
        f"there is no file {sought}",
        place=str(folder),
        cure=f"Set data.{setting} to {_present(folder)}, or set data.source={other}",
    )


def _present(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return f"one of: {', '.join(names[:12])}" if names else "a file of this folder, which is empty"
