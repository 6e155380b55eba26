"""The files of a log in pieces that are read by themselves, anywhere and in any order: looked at, then read as rows.

Knows files, columns and rows; knows nothing of who reads a piece. A first look at all of them finds what is wrong and
what only all of them together tell: the different items, in which unit times are. Told that, each piece gives its rows
as numbers, with the ids of users and the part that each user's rows belong to.

A piece is a file, which is read in order, or row groups of a Parquet file that follow each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prorec_core.config_data import DataConfig
from prorec_core.data.columns import Field, as_ratings, first, id_texts, missing_texts, refuse_id
from prorec_core.data.dictionary import Dictionary
from prorec_core.data.files import Files
from prorec_core.data.formats import TextRules, open_file
from prorec_core.data.forms import form_of
from prorec_core.data.opening import format_of, opener
from prorec_core.data.parquet import ParquetReader, rows_of_groups
from prorec_core.data.partition import ROW
from prorec_core.data.parts import PartsReader
from prorec_core.data.raw import from_zero, with_starts
from prorec_core.data.sequences import IntArray
from prorec_core.data.sources import FileSource, Source
from prorec_core.data.tables import RawTable, reading
from prorec_core.data.times import Times
from prorec_core.data.units import AboutTimes, Unit
from prorec_core.errors import UserError

PART = "part"
_WORTH = 1 << 31
"""Bytes of files from which on it is worth while to share them out: below, one process needs a minute and a few GiB."""
_ROWS = 1 << 21
"""Rows of a piece of a Parquet file, where its row groups are not larger."""
_NO_ROWS = pl.DataFrame(
    schema={PART: pl.Int32, "user": pl.String, "item": pl.Int32, "timestamp": pl.Int64, ROW: pl.Int64}
)
_FRAMES = 64
"""Counts of batches that are kept before they are added up."""


@dataclass(frozen=True)
class Piece:
    """Some rows of a log, which follow each other.

    Attributes:
        folder: what is left out of names in messages.
        file: that holds them; `size`: its bytes.
        groups: which of its row groups, as `ParquetReader` has them; None: all of it.
        rules: of its quotes.
        place: of the whole log.
        named: the names of its columns; () where the log is this file alone.
    """

    folder: Path
    file: Path
    size: int
    groups: tuple[int, int] | None
    rules: TextRules
    place: str
    named: tuple[str, ...] = ()

    def table(self) -> RawTable:
        """Its rows, with the places and names in messages that they have in the whole log."""
        if not self.named:
            return self._opened(self.file)
        return RawTable(PartsReader(self.folder, (self.file,), self._opened, self.named), self.place)

    def expect(self) -> None:
        """Refuse a machine that does not see the file, or sees another one.

        Raises:
            UserError: names the machine.
        """
        import os

        found = -1
        with suppress(OSError):
            found = self.file.stat().st_size
        if found != self.size:
            raise UserError(
                f"a worker on {os.uname().nodename} {'cannot reach it' if found < 0 else 'finds another file there'}",
                place=str(self.file),
                cure="Mount the folder of the data at the same path on all machines",
            )

    def _opened(self, file: Path) -> RawTable:
        if self.groups is None:
            return open_file(file, self.rules)
        return RawTable(ParquetReader(opener(file), self.groups), str(file))


def worth_sharing(source: Source) -> bool:
    """Whether a source's log can be read in pieces, and is so large that it should be."""
    return isinstance(source, FileSource) and sum(_sizes(source.interactions_files)) >= _WORTH


def pieces_of(source: FileSource, named: Sequence[str]) -> list[Piece]:
    """The log in pieces, in its order.

    Args:
        source: the files.
        named: the names of the columns of its log.
    """
    files, found = source.interactions_files, []
    known = () if files.parts is None else tuple(named)
    for file, size in zip(files.parts or (files.path,), _sizes(files), strict=True):
        for groups in _stretches(file):
            found.append(Piece(source.folder, file, size, groups, source.rules, str(files.path), known))
    return found


def _sizes(files: Files) -> list[int]:
    found = []
    for file in files.parts or (files.path,):
        with reading(str(file)):
            found.append(file.stat().st_size)
    return found


def _stretches(file: Path) -> Iterator[tuple[int, int] | None]:
    """Stretches of row groups of about as many rows; None for a file that is read as a whole."""
    groups: list[int] = []
    if format_of(file) == ".parquet":
        # One that cannot be read is told by who reads it in order.
        with suppress(UserError), reading(str(file)):
            groups = rows_of_groups(opener(file))
    start = rows = 0
    for end, held in enumerate(groups, start=1):
        rows += held
        if rows >= _ROWS and end < len(groups):
            yield start, end
            start, rows = end, 0
    yield None if start == 0 else (start, len(groups))


@dataclass
class Look:
    """What a look at a piece finds.

    Attributes:
        rows: how many it has.
        types: each column's types as they are met: name, type, and the row from which on.
        items: different ids of items as they stand there, and how many rows have each: columns id and rows.
        times: what is known of the times, batch by batch.
        negative: how many of these are negative and taken for 0.
        unrated: how many rows have no rating.
        without_id: by "user" and "item" what is wrong with the first row that has no id, or else one that counts as
            missing; which of both it is, True for none.
        failed: what else is wrong, and the row of the batch that shows it; nothing is known of the rows from there on.
    """

    rows: int = 0
    types: list[tuple[str, pl.DataType, int]] = field(default_factory=list)
    items: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"id": pl.String, "rows": pl.Int64}))
    times: list[AboutTimes] = field(default_factory=list)
    negative: int = 0
    unrated: int = 0
    without_id: dict[str, tuple[bool, UserError]] = field(default_factory=dict)
    failed: tuple[int, UserError] | None = None


@dataclass(frozen=True)
class Reading:
    """How the columns of a log are read, whichever piece they are of."""

    config: DataConfig
    columns: Sequence[str]
    beside: str
    """How ids of items should be written, for messages."""

    def sides(self, place: str) -> dict[str, Field]:
        """The columns of ids."""
        return {"user": Field(self.config.user_column, place), "item": Field(self.config.item_column, place)}

    def times(self, place: str) -> Times:
        """The column of times."""
        config = self.config
        return Times(Field(config.timestamp_column or "", place), config.timestamp_format, config.missing)

    def ids(self, batch: pl.DataFrame, field: Field, side: str) -> pl.Series:
        """A column of ids as texts, as `id_texts` has them."""
        return id_texts(batch[field.name], field, self.config.missing, self.beside if side == "item" else "")


def look(piece: Piece, how: Reading) -> Look:
    """What is wrong with a piece, and what has to be known of all of them. Errors of a user's are told, not raised."""
    found, counts = Look(), list[pl.DataFrame]()
    known: dict[str, set[pl.DataType]] = {name: set() for name in how.columns}
    try:
        piece.expect()
        table = piece.table()
        for start, batch in with_starts(table.batches(*how.columns)):
            for name, dtype in batch.schema.items():
                if dtype not in known[name]:
                    known[name].add(dtype)
                    found.types.append((name, dtype, start))
            counts.append(_seen(found, batch, start, how, table.place))
            if len(counts) > _FRAMES:
                counts = [added(counts)]
            found.rows = start + batch.height
    except UserError as error:
        found.failed = found.rows, error
    if counts:
        found.items = added(counts)
    return found


def _seen(found: Look, batch: pl.DataFrame, start: int, how: Reading, place: str) -> pl.DataFrame:
    """Add what a batch shows; gives its items and how many rows have each."""
    config, ids = how.config, dict[str, pl.Series]()
    for side, column in how.sides(place).items():
        ids[side] = how.ids(batch, column.at(start), side)
    if config.timestamp_column is not None:
        times, negative = from_zero(batch[config.timestamp_column], config)
        found.times.append(how.times(place).read(times, start).about)
        found.negative += negative
    if config.rating_column is not None:
        found.unrated += as_ratings(batch[config.rating_column], place, config.missing, start).null_count()
    for side, column in how.sides(place).items():
        _note_missing(found, side, ids[side], column.at(start), config.missing)
    return pl.DataFrame({"id": ids["item"]}).group_by("id").len("rows").cast({"rows": pl.Int64})


def _note_missing(found: Look, side: str, ids: pl.Series, column: Field, missing: Sequence[str]) -> None:
    """Keep what is wrong with the first row that has no id; one that counts as missing is told where there is none."""
    for none, bad in ((True, ids.is_null()), (False, missing_texts(ids, missing).fill_null(False))):
        if bad.any() and (side not in found.without_id or (none and not found.without_id[side][0])):
            row = first(bad)
            try:
                refuse_id(column, row, ids[row])
            except UserError as error:
                found.without_id[side] = none, error


def added(counts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """What several frames of columns id and rows count together, an id a row, in any order."""
    return pl.concat(counts).group_by("id").agg(pl.col("rows").sum())


@dataclass(frozen=True)
class Plan:
    """What is known of a log once all its pieces were looked at.

    Attributes:
        how: its columns are read.
        items: different ids of items as they stand there; `places`: which item of the log each is, int32, in order.
        unit: of the times; None where there are none and rows are in order of time.
        parts: how many there are.
    """

    how: Reading
    items: pl.Series
    places: IntArray
    unit: Unit | None
    parts: int


def rows_in(piece: Piece, start: int, plan: Plan) -> Iterator[pl.DataFrame]:
    """The rows of a piece that was looked at, batch by batch; the first frame has none, and is there whatever is wrong.

    Columns are `PART` (int32), user (the id), item (int32, of the log), timestamp (int64), `ROW` (int64) and, where
    there is one, rating (float64).

    Args:
        piece: the piece.
        start: which row of the log is its first.
        plan: what is known of all.

    Raises:
        UserError: a time that has no place in the unit; or the file is another one than was looked at.
    """
    yield _NO_ROWS if plan.how.config.rating_column is None else _NO_ROWS.with_columns(rating=pl.lit(None, pl.Float64))
    piece.expect()
    table, how, known = piece.table(), plan.how, Dictionary()
    config, times, sides = how.config, how.times(table.place), how.sides(table.place)
    places = np.empty(len(plan.places), np.int32)
    places[known.numbers(plan.items)] = plan.places
    for row, batch in with_starts(table.batches(*how.columns)):
        users, items = (how.ids(batch, column.at(row), side) for side, column in sides.items())
        numbers = known.numbers(items)
        if len(numbers) and int(numbers.max()) >= len(places):
            raise UserError("it was changed while it was read", place=str(piece.file), cure="Run this again")
        rows = pl.int_range(start + row, start + row + batch.height, dtype=pl.Int64, eager=True)
        moments = rows
        if plan.unit is not None:
            read = times.read(from_zero(batch[config.timestamp_column or ""], config)[0], row)
            moments = times.in_unit(read, plan.unit)
        # All users whose ids have one form are in one part, so that twins are seen.
        part = (form_of(users).hash() % plan.parts).cast(pl.Int32)
        columns: Mapping[str, Any] = {
            PART: part,
            "user": users,
            "item": places[numbers],
            "timestamp": moments,
            ROW: rows,
        }
        frame = pl.DataFrame(columns)
        if config.rating_column is not None:
            ratings = as_ratings(batch[config.rating_column], table.place, config.missing, row)
            frame = frame.with_columns(ratings.alias("rating"))
        yield frame
