"""A part of the interactions, all of some users': filtered, put in order and counted, whoever holds the others.

Knows users, items and times as numbers; knows nothing of files, of texts, or of where a part is. What one part cannot
know, which items have interactions enough, it is told; the counts of parts add up to those of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from prorec_core.data.counting import gathered, occurrences
from prorec_core.data.filtering import BoolArray, Count, Few, core_rows, k_core
from prorec_core.data.ordering import in_order_of_time, without_duplicates
from prorec_core.data.sequences import IntArray, Longs

ROW = "row"
"""A column of places in the whole log, where the order of ties is drawn."""


@dataclass(frozen=True)
class Rules:
    """What is filtered by before the k-core.

    Attributes:
        n_items: how many items the log has.
        known: which of them the catalogue has, shape (items,); None: those that it lacks are kept.
        with_text: which of them have a text, shape (items,); None: those without are kept.
        min_rating: least rating; None: there is none.
        duplicates: as `without_duplicates` takes it.
        numbered: whether rows keep their place in the log.
    """

    n_items: int
    known: BoolArray | None
    with_text: BoolArray | None
    min_rating: float | None
    duplicates: str
    numbered: bool

    def steps(self) -> list[tuple[str, str]]:
        """The filters in their order, each with its setting."""
        there = {
            "rating": self.min_rating is not None,
            "unknown_items": self.known is not None,
            "items_without_text": self.with_text is not None,
            "duplicates": True,
        }
        settings = {"rating": "data.min_rating"}
        return [(name, settings.get(name, f"data.{name}")) for name, applied in there.items() if applied]


class Part:
    """Interactions of some users on their way through the filters.

    `frame` holds a row an interaction: user (int32, codes from 0 of this part), item (int32, of the log), timestamp
    (int64), rating (float64) where there is one, and `ROW` (int64) in a part of several; rows in the order of the log.
    Filtered, they are in order of user and time. `users` holds the ids of these codes, sorted. `counts` holds those of
    all rows and of those after each filter.
    """

    def __init__(self, frame: pl.DataFrame, users: pl.Series, n_items: int) -> None:
        self.frame, self.users = frame, users
        self._n_items = n_items
        self.counts = [self._count()]

    def narrow(self, rules: Rules) -> None:
        """Apply the filters that come before the k-core."""
        if rules.min_rating is not None:
            self.keep((self.frame["rating"] >= rules.min_rating).fill_null(False))
            self.frame = self.frame.drop("rating")
        for of_items in (rules.known, rules.with_text):
            if of_items is not None:
                self.keep(pl.Series(gathered(of_items, self.frame["item"].to_numpy())))
        rows = self.frame[ROW] if ROW in self.frame.columns else None
        self.frame = in_order_of_time(self.frame, numbered=rules.numbered)
        if rows is not None and rules.numbered:
            self.frame = self.frame.with_columns(rows.gather(self.frame[ROW]).alias(ROW))
        self.keep(without_duplicates(self.frame, rules.duplicates))

    def core(self, least_user: int, least_item: int) -> Part:
        """The k-core of it, where it is all there is: this part itself."""
        users, items = (self.frame[name].to_numpy() for name in ("user", "item"))
        self.keep(k_core(users, items, least_user, least_item))
        return self

    def whole(self) -> Part:
        """All there is: this part itself."""
        return self

    def keep(self, keep: pl.Series | BoolArray) -> Count:
        """Keep the rows of a mask; gives their count."""
        keep, count = pl.Series(keep), self.counts[-1]
        if not keep.all():
            self.frame = self.frame.filter(keep)
            count = self._count()
        self.counts.append(count)
        return count

    def _count(self) -> Count:
        return Count.of(self.frame["user"].to_numpy(), self.frame["item"].to_numpy(), self._n_items)


@dataclass(frozen=True)
class Rows:
    """What is left of a part: its users and their interactions, user after user, each in order of time.

    Attributes:
        users: their ids, sorted.
        lengths: how many interactions each has, int64, shape (users,); perhaps none.
        items: int32, shape (interactions,).
        times: int64, likewise.
        places: in the log, int64, likewise; None where they are not asked for.
    """

    users: pl.Series
    lengths: Longs
    items: IntArray
    times: Longs
    places: Longs | None

    @classmethod
    def of(cls, part: Part) -> Rows:
        """Of a part that was filtered."""
        frame = part.frame
        lengths = occurrences(frame["user"].to_numpy(), part.users.len())
        items, times = frame["item"].to_numpy(), frame["timestamp"].to_numpy()
        return cls(part.users, lengths, items, times, frame[ROW].to_numpy() if ROW in frame.columns else None)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The interactions as columns of a `Part`, but for the users."""
        found: dict[str, npt.NDArray[Any]] = {"item": self.items, "timestamp": self.times}
        return found if self.places is None else {**found, ROW: self.places}

    def core_counts(self, least: int, enough: BoolArray) -> Few:
        """How many of the interactions that `core_rows` keeps are with each item."""
        kept = core_rows(self._owners(), self.items, least, enough)
        return Few.of(occurrences(self.items[kept], len(enough)))

    def core(self, least: int, enough: BoolArray) -> Rows:
        """The users and interactions that `core_rows` keeps."""
        owners = self._owners()
        kept = core_rows(owners, self.items, least, enough)
        lengths = occurrences(owners[kept], len(self.lengths))
        there = lengths > 0
        places = None if self.places is None else self.places[kept]
        return Rows(self.users.filter(pl.Series(there)), lengths[there], self.items[kept], self.times[kept], places)

    def to_arrow(self) -> pa.Table:
        """One row of lists."""
        columns = {
            "users": self.users.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string()),
            "lengths": pa.array(self.lengths),
            "items": pa.array(self.items),
            "times": pa.array(self.times),
            "places": pa.array(np.zeros(0, np.int64) if self.places is None else self.places),
        }
        return pa.table(
            {name: pa.LargeListArray.from_arrays([0, len(values)], values) for name, values in columns.items()}
        )

    @classmethod
    def of_arrow(cls, row: pa.Table) -> Rows:
        """What `to_arrow` made, perhaps beside other columns; arrays share the table's memory."""
        names = ("users", "lengths", "items", "times", "places")
        ids, *lists = (row.column(name).combine_chunks().flatten() for name in names)
        lengths, items, times, places = (each.to_numpy(zero_copy_only=False) for each in lists)
        users = pl.Series("user_id", ids, dtype=pl.String)
        return cls(users, lengths, items, times, None if len(places) < len(items) else places)

    def _owners(self) -> IntArray:
        return np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)


_NONE = np.zeros(0, np.int64)
NO_ROWS = Rows(pl.Series([], dtype=pl.String), _NONE, _NONE.astype(np.int32), _NONE, None)
