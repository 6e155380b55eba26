"""Histories to recommend to, read chunk by chunk: those of a preprocessed data set, or those of a file.

Knows Parquet, CSV and JSON Lines, and the columns that such a file has. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow as pa

from prorec_core.data.columns import Field, as_ids, need_columns
from prorec_core.data.dataset import Dataset
from prorec_core.data.formats import RULES, TextRules, table_of
from prorec_core.data.raw import with_starts
from prorec_core.data.tables import RawTable
from prorec_core.data.times import as_timestamps
from prorec_core.errors import UserError


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some users and their histories, as columns.

    Attributes:
        user_ids: strings.
        histories: in the same order, lists of strings: item ids with the oldest first.
    """

    user_ids: pl.Series
    histories: pl.Series


class Histories(Protocol):
    """Users with their histories, always in the same order."""

    @property
    def place(self) -> str:
        """Where they come from, in words."""
        ...

    @property
    def n_users(self) -> int:
        """How many users there are."""
        ...

    def item_ids(self) -> pl.Series:
        """The item ids that occur, or could occur, each once."""
        ...

    def chunks(self, size: int) -> Iterator[Chunk]:
        """All users in chunks of `size`, the last one smaller."""
        ...


@dataclass(frozen=True)
class DatasetHistories:
    """Everything that each user of a data set has, held-back items included: what comes after is to be recommended.

    Interactions with new items that were held out (`Dataset.new_items`) are in no history.
    """

    dataset: Dataset
    place: str = "the model's data set"

    @property
    def n_users(self) -> int:
        return self.dataset.sequences.n_users

    def item_ids(self) -> pl.Series:
        return self.dataset.all_items()["item_id"]

    def chunks(self, size: int) -> Iterator[Chunk]:
        ids, users, sequences = self.item_ids(), self.dataset.users["user_id"], self.dataset.sequences
        for start in range(0, self.n_users, size):
            offsets = sequences.offsets[start : start + size + 1]
            items = ids.gather(sequences.items[offsets[0] : offsets[-1]])
            lists = pa.LargeListArray.from_arrays(pa.array(offsets - offsets[0]), items.to_arrow())
            yield Chunk(users.slice(start, size), pl.Series("history", lists, pl.List(pl.String)))


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a file of histories or of interactions; `time` None: rows are in order of time.

    `form` says how times are written, as `data.timestamp_format` does.
    """

    user: str = "user_id"
    history: str = "history"
    item: str = "item_id"
    time: str | None = "timestamp"
    form: str | None = None


@dataclass(frozen=True)
class FileHistories:
    """A row a user with a list of item ids (or a text of item ids with commas), or a row an interaction.

    Histories are read as they are asked for, batch by batch; the ids of users stay in memory. Interactions are sorted
    by user and time first, which takes memory for three columns of the file; their users come in order of their ids.
    """

    path: Path
    columns: Columns = Columns()
    rules: TextRules = RULES

    @property
    def place(self) -> str:
        return str(self.path)

    @cached_property
    def n_users(self) -> int:
        """How many users there are.

        Raises:
            UserError: a column is missing or of a wrong type, there are no users, or one stands there twice.
        """
        users, _ = self._ids
        if users.is_empty():
            raise UserError("the file holds no users", place=self.place, cure="Check that it is complete")
        twice = users.is_duplicated()
        if twice.any():
            repeated = users.filter(twice)
            raise UserError(
                f"the user '{repeated[0]}' has more than one history ({users.len() - users.n_unique():,} rows over)",
                place=self.place,
                cure="Keep one row a user",
            )
        return users.len()

    def item_ids(self) -> pl.Series:
        return self._ids[1]

    def chunks(self, size: int) -> Iterator[Chunk]:
        for rows in _exactly(self._frames(), size):
            yield Chunk(rows["user"], rows["history"])

    @cached_property
    def _ids(self) -> tuple[pl.Series, pl.Series]:
        """The ids of users in the order of `_frames`, and those of items, each once."""
        if self._grouped is not None:
            return self._grouped["user"], _distinct(self._grouped["history"])
        users, items = [], []
        for start, rows in with_starts(self._table.batches(self.columns.user, self.columns.history)):
            users.append(rows[self.columns.user].alias("user").to_frame())
            items.append(_distinct(self._lists(rows[self.columns.history], start)))
        ids = pl.concat(users, how="vertical_relaxed").to_series().alias(self.columns.user)
        return as_ids(ids, self._table.place), pl.concat(items).unique().sort()

    def _frames(self) -> Iterator[pl.DataFrame]:
        """Columns user (string) and history (list of strings), a row a user, at least one frame."""
        if self._grouped is not None:
            yield self._grouped
            return
        user, history = self.columns.user, self.columns.history
        for start, rows in with_starts(self._table.batches(user, history)):
            yield pl.DataFrame([rows[user].alias("user").cast(pl.String), self._lists(rows[history], start)])

    @cached_property
    def _table(self) -> RawTable:
        return table_of(self.path, self.rules)

    @cached_property
    def _grouped(self) -> pl.DataFrame | None:
        """The interactions as histories; None where the file holds histories already."""
        table, names = self._table, self.columns
        if names.history in table.columns():
            need_columns(table, {names.user: "the column of users"})
            return None
        wanted = {names.user: "the column of users", names.item: f"the column of items, or have '{names.history}'"}
        if names.time is not None:
            wanted[names.time] = "the column of times"
        need_columns(table, wanted)
        return self._of_interactions(table.collect(*wanted), table.place)

    def _lists(self, histories: pl.Series, start: int) -> pl.Series:
        """Lists of item ids, an empty one where there is none; `start` is the row of the first.

        Raises:
            UserError: the column is of a wrong type, or something in a history is no id.
        """
        kind, frame = histories.dtype, histories.alias("history").to_frame()
        lists: pl.Expr
        if kind == pl.String:
            parts = pl.col("history").str.split(",").list.eval(pl.element().str.strip_chars())
            lists = pl.when(pl.col("history").str.strip_chars() != "").then(parts)
        elif kind == pl.Null or (
            isinstance(kind, pl.List) and (kind.inner.is_integer() or kind.inner in (pl.String, pl.Null))
        ):
            lists = pl.col("history").cast(pl.List(pl.String))
        else:
            raise UserError(
                f"column '{self.columns.history}' has the type {kind}",
                place=self.place,
                cure="Histories must be lists of item ids, or texts of item ids with commas",
            )
        found = frame.select(lists.fill_null(pl.lit([], dtype=pl.List(pl.String))).alias("history")).to_series()
        without = found.list.eval(pl.element().is_null() | (pl.element() == "")).list.any()
        column = Field(self.columns.history, self.place, start)
        column.refuse(without, "has an item without an id", histories, "Fill it in or leave it out")
        return found

    def _of_interactions(self, raw: pl.DataFrame, place: str) -> pl.DataFrame:
        names = self.columns
        rows = pl.DataFrame(
            [as_ids(raw[names.user], place).alias("user"), as_ids(raw[names.item], place).alias("item")]
        )
        if names.time is not None:
            times = as_timestamps(raw[names.time], place, names.form)[0].alias("time")
            rows = rows.with_columns(times).sort("time", maintain_order=True)
        return rows.group_by("user", maintain_order=True).agg(history="item").sort("user")


def _distinct(histories: pl.Series) -> pl.Series:
    return histories.explode().unique().drop_nulls().sort()


def _exactly(batches: Iterable[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of `size` rows, wherever the batches end."""
    kept: pl.DataFrame | None = None
    for batch in batches:
        rows = batch if kept is None else pl.concat([kept, batch])
        whole = rows.height - rows.height % size
        yield from rows.head(whole).iter_slices(size)
        kept = rows.slice(whole)
    if kept is not None and kept.height:
        yield kept
