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

from prorec_core.data.columns import as_ids, need_columns
from prorec_core.data.dataset import Dataset
from prorec_core.data.sources import RawTable, reading, scan_table
from prorec_core.data.times import as_timestamps
from prorec_core.errors import UserError

_BATCH = 10_000


@dataclass(frozen=True)
class Chunk:
    """Some users and their histories, item ids with the oldest first."""

    user_ids: list[str]
    histories: list[list[str]]


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

    Interactions with new items that were held out (`Dataset.cold`) are in no history.
    """

    dataset: Dataset
    place: str = "the model's data set"

    @property
    def n_users(self) -> int:
        return self.dataset.sequences.n_users

    def item_ids(self) -> pl.Series:
        return self.dataset.all_items()["item_id"]

    def chunks(self, size: int) -> Iterator[Chunk]:
        items, users = self.dataset.items["item_id"].to_list(), self.dataset.users["user_id"].to_list()
        for start in range(0, self.n_users, size):
            chosen = range(start, min(start + size, self.n_users))
            histories = [[items[item] for item in self.dataset.sequences.of_user(user)] for user in chosen]
            yield Chunk(users[chosen.start : chosen.stop], histories)


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

    Histories are read as they are asked for. Interactions are sorted by user and time first, which takes memory for
    three columns of the file; their users come in order of their ids.
    """

    path: Path
    columns: Columns = Columns()

    @property
    def place(self) -> str:
        return str(self.path)

    @cached_property
    def n_users(self) -> int:
        """How many users there are.

        Raises:
            UserError: a column is missing or of a wrong type, there are no users, or one stands there twice.
        """
        user = pl.col("user")
        counts = self._frame.select(
            rows=pl.len(), users=user.n_unique(), nameless=user.eq("").arg_max() + 1, any=user.eq("").any()
        )
        rows, unique, nameless, any_nameless = self._collect(counts).row(0)
        if rows == 0:
            raise UserError("the file holds no users", place=self.place, cure="Check that it is complete")
        if any_nameless:
            raise UserError(
                f"column '{self.columns.user}' has no id in row {nameless}",
                place=self.place,
                cure="Fill it in or drop it",
            )
        if rows != unique:
            repeated = self._frame.filter(pl.col("user").is_duplicated()).select("user").head(1)
            raise UserError(
                f"the user '{self._collect(repeated).item()}' has more than one history ({rows - unique:,} rows over)",
                place=self.place,
                cure="Keep one row a user",
            )
        return int(rows)

    def item_ids(self) -> pl.Series:
        column = self._frame.select(pl.col("history").explode().unique().drop_nulls().sort())
        return self._collect(column).to_series()

    def chunks(self, size: int) -> Iterator[Chunk]:
        with reading(self.place):
            batches = self._frame.collect_batches(chunk_size=max(size, _BATCH), maintain_order=True, lazy=True)
            for rows in _exactly(batches, size):
                yield Chunk(rows["user"].to_list(), rows["history"].to_list())

    @cached_property
    def _frame(self) -> pl.LazyFrame:
        """Columns user (string) and history (list of strings), a row a user."""
        table = RawTable(scan_table(self.path), self.place)
        names = self.columns
        if names.history in table.columns():
            need_columns(table, {names.user: "the column of users"})
            return self._of_histories(table)
        wanted = {names.user: "the column of users", names.item: f"the column of items, or have '{names.history}'"}
        if names.time is not None:
            wanted[names.time] = "the column of times"
        need_columns(table, wanted)
        return self._of_interactions(table.collect(*wanted), table.place).lazy()

    def _of_histories(self, table: RawTable) -> pl.LazyFrame:
        user, history = self.columns.user, self.columns.history
        schema = table.frame.collect_schema()
        as_ids(pl.Series(user, [], dtype=schema[user]), self.place)
        kind, column = schema[history], pl.col(history)
        if kind == pl.String:
            parts = column.str.split(",").list.eval(pl.element().str.strip_chars())
            lists = parts.list.filter(pl.element() != "")
        elif isinstance(kind, pl.List) and (kind.inner.is_integer() or kind.inner in (pl.String, pl.Null)):
            lists = column.cast(pl.List(pl.String)).list.drop_nulls()
        else:
            raise UserError(
                f"column '{history}' has the type {kind}",
                place=self.place,
                cure="Histories must be lists of item ids, or texts of item ids with commas",
            )
        empty = pl.lit([], dtype=pl.List(pl.String))
        return table.frame.select(
            pl.col(user).cast(pl.String).fill_null("").alias("user"), lists.fill_null(empty).alias("history")
        )

    def _of_interactions(self, raw: pl.DataFrame, place: str) -> pl.DataFrame:
        names = self.columns
        rows = pl.DataFrame({"user": as_ids(raw[names.user], place), "item": as_ids(raw[names.item], place)})
        if names.time is not None:
            rows = rows.with_columns(time=as_timestamps(raw[names.time], place, names.form)[0]).sort(
                "time", maintain_order=True
            )
        return rows.group_by("user", maintain_order=True).agg(history="item").sort("user")

    def _collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        with reading(self.place):
            return frame.collect(engine="streaming")


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
