"""Sources of published data sets: their files found by name, and read under the names of columns that `data` has.

Knows which file is which, and what a layout says of its columns. Knows nothing of addresses or licences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from prorec_core.artifacts import sha256_file, sha256_json
from prorec_core.config_data import DataConfig
from prorec_core.data.delimited import DelimitedReader
from prorec_core.data.files import folder_of, present
from prorec_core.data.formats import TextRules, open_file
from prorec_core.data.layouts import LAYOUTS, TWO_COLONS, Form, Layout
from prorec_core.data.opening import COMPRESSED, changed, in_utf8, opener
from prorec_core.data.quotes import Dialect
from prorec_core.data.sessions import SESSIONS
from prorec_core.data.tables import RawTable, reading
from prorec_core.errors import UserError

_UNIT = "\x1f"
"""What separates fields where a file has two characters for it: the one that ASCII has for that."""
_DEEP = 3
"""Folders below the one given in which files are looked for: archives have folders of their own."""


@dataclass(frozen=True)
class Named:
    """A table under our names of its columns; those that the layout says nothing of keep theirs."""

    table: RawTable
    form: Form

    def columns(self) -> list[str]:
        return list(self._places)

    def rows(self) -> int:
        return self.table.rows()

    def batches(self, columns: Sequence[int]) -> Iterator[pl.DataFrame]:
        names = [list(self._places)[place] for place in columns]
        wanted = dict.fromkeys(each for name in names for each in self._places[name])
        for batch in self.table.batches(*wanted):
            yield pl.DataFrame([self._column(batch, name).alias(f"{n}") for n, name in enumerate(names)])

    def where(self, row: int) -> str:
        return self.table.place.row(row)

    @cached_property
    def _places(self) -> dict[str, tuple[str, ...]]:
        """By our name the file's columns that make it up."""
        there = self.table.columns()
        taken: dict[str, tuple[str, ...]] = {name: (own,) for name, own in self.form.columns.items() if own in there}
        taken |= {name: own for name, own in self.form.flags.items() if set(own) <= set(there)}
        used = {own for columns in taken.values() for own in columns}
        return {**{name: (name,) for name in there if name not in used and name not in taken}, **taken}

    def _column(self, batch: pl.DataFrame, name: str) -> pl.Series:
        if name in self.form.flags:
            flagged = [
                pl.when(batch[own] == "1").then(pl.lit(own)).otherwise(pl.lit(None, pl.String))
                for own in self._places[name]
            ]
            return batch.select(pl.concat_list(flagged).list.drop_nulls().alias(name)).to_series()
        column = batch[self._places[name][0]]
        return column.str.split(self.form.split[name]) if name in self.form.split else column


@dataclass(frozen=True)
class PublishedSource:
    """Two files of one layout."""

    folder: Path
    layout: Layout
    log: Path
    stock: Path
    rules: TextRules
    source: str

    def interactions(self) -> RawTable:
        table = self._table(self.log, self.layout.interactions)
        return SESSIONS[self.source](table) if self.source in SESSIONS else table

    def items(self) -> RawTable:
        return self._table(self.stock, self.layout.items)

    def facts(self) -> dict[str, Any]:
        names = [path.relative_to(self.folder).as_posix() for path in (self.log, self.stock)]
        return {"layout": self.layout.name, "files": names}

    def digest(self) -> str:
        found = []
        for path in (self.log, self.stock):
            with reading(str(path)):
                found.append(sha256_file(path))
        return sha256_json([self.layout.name, *found])

    def _table(self, path: Path, form: Form) -> RawTable:
        if not form.separator:
            return RawTable(Named(open_file(path, self.rules), form), str(path))
        place, separator = str(path), form.separator
        open_ = in_utf8(opener(path), place)
        if separator == TWO_COLONS:
            separator, open_ = _UNIT, changed(open_, lambda data: data.replace(TWO_COLONS.encode(), _UNIT.encode()))
        reader = DelimitedReader(open_, place, Dialect(separator, quotes=False), names=form.header)
        return RawTable(Named(RawTable(reader, place), form), place)


def published(config: DataConfig) -> PublishedSource:
    """The files of a published data set in a folder and those below it, in whichever of its layouts they are.

    Raises:
        UserError: no path, no such folder, or not the two files of exactly one layout.
    """
    if config.path is None:
        raise UserError(
            f"the source '{config.source}' needs a folder", place="data.path", cure="Set data.path to the folder"
        )
    folder, layouts = folder_of(config.path), LAYOUTS[config.source]
    found = find_layouts(folder, layouts, config.interactions_file, config.items_file)
    if len(found) == 1:
        layout, log, stock = found[0]
        return PublishedSource(folder, layout, log, stock, TextRules(config.quotes, config.multiline), config.source)
    if found:
        named = [f"{log.relative_to(folder)} and {stock.relative_to(folder)}" for _, log, stock in found]
        raise UserError(
            f"several pairs of files could be meant: {'; '.join(named[:5])}",
            place=str(folder),
            cure="Name those that are meant in data.interactions_file and data.items_file",
        )
    sought = "; or ".join(f"{each.interactions.files} and {each.items.files}" for each in layouts)
    raise UserError(
        f"there are no two files as {sought} (perhaps with {' or '.join(COMPRESSED)})",
        place=str(folder),
        cure=f"Put them there under the names that they were published with; there is {present(folder)}",
    )


def find_layouts(
    folder: Path, layouts: Sequence[Layout], log_name: str | None = None, stock_name: str | None = None
) -> list[tuple[Layout, Path, Path]]:
    """All pairs of files of these layouts, of the names that are given where some are."""
    with reading(str(folder)):
        there = (path for deep in range(_DEEP) for path in folder.glob("*/" * deep + "*") if path.is_file())
        # Names that begin with a dot are of programs: what is being fetched or unpacked, and records of it.
        own = (path for path in there if not any(part.startswith(".") for part in path.relative_to(folder).parts))
        files = sorted(own)
    found = []
    for layout in layouts:
        logs, stocks = _matching(files, layout.interactions), _matching(files, layout.items)
        logs = [path for path in logs if log_name is None or path == folder / log_name]
        stocks = [path for path in stocks if stock_name is None or path == folder / stock_name]
        # Several tables of one data set in folders of their own: what stands side by side belongs together.
        pairs = [(log, stock) for log in logs for stock in stocks]
        beside = [(log, stock) for log, stock in pairs if log.parent == stock.parent]
        found += [(layout, log, stock) for log, stock in beside or pairs]
    return found


def _matching(files: Sequence[Path], form: Form) -> list[Path]:
    def plain(path: Path) -> str:
        return path.name.removesuffix(path.suffix) if path.suffix.lower() in COMPRESSED else path.name

    names = [(path, plain(path)) for path in files]
    return [
        path
        for path, name in names
        if fnmatchcase(name, form.files) and not any(fnmatchcase(name, other) for other in form.but)
    ]
