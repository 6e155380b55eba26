"""Logs with several interactions a row: an interaction a row is made of each.

Knows MIND's impressions and Amazon-M2's sessions. Knows nothing of where files are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from prorec_core.data.columns import Field
from prorec_core.data.tables import Place, RawTable, row_number

_NAMES = ("user_id", "item_id", "timestamp")
_MIND_TIME = "%m/%d/%Y %I:%M:%S %p"
_LISTED = r"'[^']+'"

Expand = Callable[[pl.DataFrame, Place, int], pl.DataFrame]
"""From some rows, their table's place and the number of the first to the columns row, user_id, item_id, timestamp."""


@dataclass(frozen=True)
class Expanded:
    """The interactions in the rows of a table; that none of its rows is lost, the table checks."""

    table: RawTable
    wanted: tuple[str, ...]
    make: Callable[[], Expand]
    """Makes what expands rows, anew for each pass: it may remember what it met."""

    def columns(self) -> list[str]:
        return list(_NAMES)

    def rows(self) -> int:
        return self._rows

    def batches(self, columns: Sequence[int]) -> Iterator[pl.DataFrame]:
        rows = 0
        for frame in self._frames():
            rows += frame.height
            yield pl.DataFrame([frame[_NAMES[place]].alias(f"{n}") for n, place in enumerate(columns)])
        self.__dict__["_rows"] = rows

    def where(self, row: int) -> str:
        for frame in self._frames():
            if row < frame.height:
                return self.table.place.row(int(frame["row"][row]))
            row -= frame.height
        return row_number(row)

    @cached_property
    def _rows(self) -> int:
        return sum(frame.height for frame in self._frames())

    def _frames(self) -> Iterator[pl.DataFrame]:
        expand, start = self.make(), 0
        for batch in self.table.batches(*self.wanted):
            yield expand(batch, self.table.place, start)
            start += batch.height


class _Impressions:
    """MIND: what a user had read before comes first, at the time 0, in the order given; then what was clicked."""

    def __init__(self) -> None:
        self._met: set[Any] = set()

    def __call__(self, batch: pl.DataFrame, place: Place, start: int) -> pl.DataFrame:
        field = Field("time", place, start)
        times = batch["time"].str.to_datetime(_MIND_TIME, strict=False)
        field.refuse(times.is_null(), "holds what is not written as 11/13/2019 8:36:57 AM", batch["time"])
        odd = batch["impressions"].str.contains(r"^\S+-[01]( \S+-[01])*$")
        field = Field("impressions", place, start)
        field.refuse(~odd.fill_null(False), "holds what is no list of items and clicks", batch["impressions"])
        rows = pl.DataFrame({"row": np.arange(start, start + batch.height), "user_id": batch["user_id"]})
        before = rows.with_columns(item_id=batch["history"].str.split(" "), timestamp=pl.lit(0, pl.Int64))
        before = (
            before.filter(self._first(batch["user_id"])).explode("item_id", empty_as_null=True).drop_nulls("item_id")
        )
        clicked = rows.with_columns(item_id=batch["impressions"].str.split(" "), timestamp=times.dt.epoch("s")).explode(
            "item_id"
        )
        clicked = clicked.filter(pl.col("item_id").str.ends_with("-1"))
        clicked = clicked.with_columns(pl.col("item_id").str.strip_suffix("-1"))
        return pl.concat([before, clicked]).sort("row", maintain_order=True)

    def _first(self, users: pl.Series) -> pl.Series:
        new = users.is_first_distinct() & ~users.is_in(list(self._met))
        self._met.update(users.unique())
        return new


def _session(batch: pl.DataFrame, place: Place, start: int) -> pl.DataFrame:
    """Amazon-M2: a session is a user, its items are in order, and the time is their place."""
    written = batch["prev_items"]
    bare = written.str.replace_all(_LISTED, "").str.contains(r"^\[\s*\]$")
    Field("prev_items", place, start).refuse(~bare.fill_null(False), "holds what is no list of items", written)
    items = written.str.extract_all(_LISTED).list.eval(pl.element().str.strip_chars("'"))
    rows = np.arange(start, start + batch.height)
    frame = pl.DataFrame({"row": rows, "user_id": rows, "item_id": items, "next": batch["next_item"]})
    frame = frame.with_columns(pl.concat_list("item_id", "next").alias("item_id"))
    frame = frame.with_columns(timestamp=pl.int_ranges(pl.col("item_id").list.len()))
    return frame.explode("item_id", "timestamp").select("row", *_NAMES)


def _of_mind(table: RawTable) -> RawTable:
    wanted = ("user_id", "time", "history", "impressions")
    return RawTable(Expanded(table, wanted, _Impressions), table.place)


def _of_amazon_m2(table: RawTable) -> RawTable:
    return RawTable(Expanded(table, ("prev_items", "next_item"), lambda: _session), table.place)


SESSIONS: dict[str, Callable[[RawTable], RawTable]] = {"mind": _of_mind, "amazon_m2": _of_amazon_m2}
"""By source what makes interactions of its rows."""
