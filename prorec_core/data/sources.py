"""Where raw tables come from: the demo shop, generic tables, RecBole's atomic files.

Knows file names and formats. Knows nothing of what columns mean or of what is kept of their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from prorec_core.artifacts import sha256_file, sha256_json
from prorec_core.config import DataConfig, DemoShop
from prorec_core.data.demo import DemoData, make_demo_shop
from prorec_core.errors import UserError


@dataclass(frozen=True)
class RawTable:
    """A table as it came, and its place in words for messages."""

    frame: pl.LazyFrame
    place: str

    def columns(self) -> list[str]:
        """Names of the columns, without reading the rows."""
        with reading(self.place):
            return self.frame.collect_schema().names()

    def collect(self, *columns: str) -> pl.DataFrame:
        """Read some columns of all rows, in the order of the file."""
        with reading(self.place):
            return self.frame.select(columns).collect()


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
    if config.source == "demo":
        return DemoSource(config.demo)
    if config.path is None:
        raise UserError(
            f"the source '{config.source}' needs a folder", place="data.path", cure="Set data.path to the folder"
        )
    folder = Path(config.path).expanduser()
    if not folder.is_dir():
        raise UserError("there is no such folder", place=str(folder), cure="Set data.path to the folder of the data")
    names, scanners, other = _KINDS[config.source]
    found = [
        _find(folder, given, setting, stem, suffixes=tuple(scanners), other=other)
        for given, setting, stem in (
            (config.interactions_file, "interactions_file", names[0]),
            (config.items_file, "items_file", names[1]),
        )
    ]
    return FileSource(found[0], found[1], scanners)


@dataclass(frozen=True)
class DemoSource:
    """The generated shop."""

    config: DemoShop

    def interactions(self) -> RawTable:
        return RawTable(self._shop.interactions.lazy(), "the demo shop's interactions")

    def items(self) -> RawTable:
        return RawTable(self._shop.items.lazy(), "the demo shop's items")

    def facts(self) -> dict[str, Any]:
        return {"demo": self._shop.facts}

    def digest(self) -> str:
        return sha256_json(self.config.model_dump())

    @cached_property
    def _shop(self) -> DemoData:
        return make_demo_shop(self.config)


Scanner = Callable[[Path], pl.LazyFrame]


@dataclass(frozen=True)
class FileSource:
    """Two files, each read by the scanner that its suffix names."""

    interactions_file: Path
    items_file: Path
    scanners: dict[str, Scanner]

    def interactions(self) -> RawTable:
        return self._table(self.interactions_file)

    def items(self) -> RawTable:
        return self._table(self.items_file)

    def facts(self) -> dict[str, Any]:
        return {"files": [self.interactions_file.name, self.items_file.name]}

    def digest(self) -> str:
        files = (self.interactions_file, self.items_file)
        return sha256_json([[file.suffix.lower(), sha256_file(file)] for file in files])

    def _table(self, file: Path) -> RawTable:
        with reading(str(file)):
            return RawTable(self.scanners[file.suffix.lower()](file), str(file))


class reading:  # noqa: N801 - used as a statement, like contextlib's own
    """Turns what Polars and the operating system say of an unreadable file into one line for the user."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (pl.exceptions.PolarsError, OSError, UnicodeDecodeError)):
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"the file cannot be read ({said[:200]})",
                place=self.place,
                cure="Check that it is complete and of the format that its suffix says",
            ) from error


def _scan_csv(path: Path) -> pl.LazyFrame:
    return pl.scan_csv(path, infer_schema=False, separator="\t" if path.suffix.lower() == ".tsv" else ",")


def _scan_json_lines(path: Path) -> pl.LazyFrame:
    return pl.scan_ndjson(path, infer_schema_length=None)


def _scan_atomic(path: Path) -> pl.LazyFrame:
    """RecBole's atomic file: tab-separated, unquoted, a header of `name:type`; columns lose their type."""
    frame = pl.scan_csv(path, infer_schema=False, separator="\t", quote_char=None)
    return frame.rename({name: name.partition(":")[0] for name in frame.collect_schema().names()})


_TABLES: dict[str, Scanner] = {
    ".parquet": pl.scan_parquet,
    ".csv": _scan_csv,
    ".tsv": _scan_csv,
    ".jsonl": _scan_json_lines,
    ".ndjson": _scan_json_lines,
}


def scan_table(path: Path) -> pl.LazyFrame:
    """A table of one of the generic formats, read when it is asked for.

    Raises:
        UserError: there is no such file, or its suffix is of no such format.
    """
    if path.suffix.lower() not in _TABLES:
        raise UserError(
            "a file of this kind is not read", place=str(path), cure=f"Give one that ends in {', '.join(_TABLES)}"
        )
    if not path.is_file():
        raise UserError("there is no such file", place=str(path), cure="Check the name")
    return _TABLES[path.suffix.lower()](path)


_ATOMIC: dict[str, Scanner] = {".inter": _scan_atomic, ".item": _scan_atomic}
_KINDS: dict[str, tuple[tuple[str, str], dict[str, Scanner], str]] = {
    "tables": (("interactions", "items"), _TABLES, "recbole"),
    "recbole": (("*.inter", "*.item"), _ATOMIC, "tables"),
}


def _find(folder: Path, given: str | None, setting: str, stem: str, *, suffixes: tuple[str, ...], other: str) -> Path:
    if given is not None:
        path = folder / given
        if path.suffix.lower() not in suffixes:
            raise UserError(
                f"a file of this kind is not read here (data.{setting})",
                place=str(path),
                cure=f"Give a file that ends in {', '.join(suffixes)}, or set data.source={other}",
            )
        if not path.is_file():
            raise UserError("there is no such file", place=str(path), cure=f"Set data.{setting} to {_present(folder)}")
        return path
    patterns = [stem] if "*" in stem else [stem + suffix for suffix in suffixes]
    found = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"several files could be meant: {', '.join(path.name for path in found)}",
            place=str(folder),
            cure=f"Name one in data.{setting}",
        )
    raise UserError(
        f"there is no file {' or '.join(patterns)}",
        place=str(folder),
        cure=f"Set data.{setting} to {_present(folder)}, or set data.source={other}",
    )


def _present(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return f"one of: {', '.join(names[:12])}" if names else "a file of this folder, which is empty"
