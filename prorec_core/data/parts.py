"""Several files as one table: which of them a pattern means, and a reader of them one after the other.

Knows names of files and the types of their columns. Knows nothing of formats or of what columns mean.

A pattern is meant where a name holds `*`, `?` or `[` and no file has this very name. The files are read in the order of
their paths, compared part by part as text (`a/9.csv` after `a/10.csv`), whatever the file system gives them in.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from prorec_core.data.tables import RawTable, reading, row_number
from prorec_core.errors import UserError

NOT_THERE = "this is a link to what is not there, or no file at all"


def is_pattern(given: str) -> bool:
    """Whether a name could be a pattern."""
    return glob.has_magic(given)


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder that a pattern means, at least one, in their order.

    `*`, `?` and `[…]` stand for what they do in a shell, `**` for folders however deep. A dot at the beginning of a
    name is matched by a dot alone, so that files that are still being written do not count.

    Raises:
        UserError: it means no file, or a folder.
    """
    place = str(folder / pattern)
    with reading(place):
        # Unlike `Path.glob` it passes over hidden names and takes the folder's own name as it is.
        names = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207
        found = sorted({folder / name for name in names}, key=lambda path: path.parts)
        folders = [path for path in found if path.is_dir()]
        files = once(path for path in found if path.is_file())
        _expect_readable(folder, pattern)
        lost = [path for path in found if not path.exists() or not (path.is_file() or path.is_dir())]
    if lost:
        raise UserError(NOT_THERE, place=str(lost[0]), cure="Fetch it, or take it out of what the pattern means")
    if folders:
        raise UserError(
            f"the pattern means a folder, {folders[0].name}, as if it were a file",
            place=place,
            cure=f"Name the files in it, as {folders[0].name}/*{folders[0].suffix}",
        )
    if not files:
        raise UserError(
            "there is no file of this name, and none that it means as a pattern",
            place=place,
            cure="Check the name; * stands for any part of a name, ? for a character, [ab] for one of some",
        )
    return files


def once(files: Iterable[Path]) -> list[Path]:
    """Files in their order, those that links lead to several times but once."""
    return list({path.resolve(): path for path in reversed(list(files))}.values())[::-1]


def _expect_readable(folder: Path, pattern: str) -> None:
    """Refuse folders that a pattern looks into and that cannot be read, which it passes over.

    Raises:
        PermissionError: there is one.
    """
    parts = pattern.split("/")
    for depth in (place for place, part in enumerate(parts) if glob.has_magic(part)):
        above = "/".join(parts[:depth])
        for name in glob.glob(above, root_dir=folder, recursive=True) if above else [""]:  # noqa: PTH207
            if (path := folder / name).is_dir():
                os.scandir(path).close()


@dataclass(frozen=True)
class PartsReader:
    """The rows of several files, file after file, by the names of the first one's columns."""

    folder: Path
    """What is left out of the files' names in messages."""
    files: Sequence[Path]
    open_file: Callable[[Path], RawTable]
    named: tuple[str, ...] = ()
    """Names of the columns where they are those of a file that is not among these."""

    def columns(self) -> list[str]:
        return list(self.named) or self._tables[0].columns()

    def rows(self) -> int:
        return sum(self._rows)

    def batches(self, columns: Sequence[int]) -> Iterator[pl.DataFrame]:
        names = [self.columns()[place] for place in columns]
        kinds = Kinds(self.folder)
        for file, table in zip(self.files, self._tables, strict=True):
            # Each table checks by itself that no row of it is lost.
            for batch in table.batches(*names):
                values = [_plain(batch[name]) for name in names]
                for column in values:
                    kinds.expect(column.name, column.dtype, file)
                yield pl.DataFrame([column.alias(f"{place}") for place, column in enumerate(values)])

    def where(self, row: int) -> str:
        left = row
        for file, table, rows in zip(self.files, self._tables, self._rows, strict=True):
            if left < rows:
                return f"{table.place.row(left)} of {name_in(self.folder, file)}"
            left -= rows
        return row_number(row)

    @cached_property
    def _tables(self) -> list[RawTable]:
        return [self.open_file(file) for file in self.files]

    @cached_property
    def _rows(self) -> list[int]:
        return [table.rows() for table in self._tables]


class Kinds:
    """The types that columns have in some files, one after the other."""

    def __init__(self, folder: Path) -> None:
        """As `PartsReader` has it."""
        self._folder = folder
        self._known: dict[str, dict[pl.DataType, Path]] = {}

    def expect(self, name: str, dtype: pl.DataType, file: Path) -> None:
        """Refuse a column that is of one kind in one file and of another in the next; learns its type.

        Raises:
            UserError: names both types, and the file of the other one.
        """
        known = self._known.setdefault(name, {})
        if dtype in known:
            return
        for before, other in known.items():
            if not _go_together(before, dtype):
                raise UserError(
                    f"column '{name}' has the type {dtype}, and {before} in {name_in(self._folder, other)}",
                    place=str(file),
                    cure="Write the column alike in all files",
                )
        known[dtype] = file


def name_in(folder: Path, file: Path) -> str:
    """A file's name in messages on the files of a folder."""
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def _plain(column: pl.Series) -> pl.Series:
    """The column; each file may have the categories of its own."""
    return column.cast(pl.String) if column.dtype in (pl.Categorical, pl.Enum) else column


def _go_together(one: pl.DataType, other: pl.DataType) -> bool:
    """Whether values of both types can stand in one column as what they are."""
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        return _go_together(one.inner, other.inner)  # type: ignore[arg-type]
    return one == other or pl.Null in (one, other) or (one.is_numeric() and other.is_numeric())
