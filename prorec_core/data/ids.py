"""A column of ids as numbers, batch by batch: what an id is, is asked once of each, whatever the number of its rows.

Knows ids, what counts as a missing one, and rows for messages. Knows nothing of formats of files or of filters.

Each batch becomes numbers by a dictionary that all batches share (Polars' `Categories`), so no more texts are in memory
than those of a few batches and the different ones. In which order threads meet the texts is chance; the numbers that
are handed on are places among the sorted ids and depend on nothing but the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.columns import EMPTY, Field, id_texts, missing_texts, refuse_id
from prorec_core.data.counting import gathered, occurrences
from prorec_core.data.sequences import IntArray

_NONE = 2**32 - 1
"""Number of a row without an id."""

Numbers = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Distinct:
    """The different ids of a column.

    Attributes:
        ids: each once, in no order.
        rows: how many rows have each, int64, shape (ids,).
        numbers: by which numbers the dictionary has them, int64, shape (ids,).
    """

    ids: pl.Series
    rows: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]


class IdColumn:
    """One column of ids. `numbers` may be called by several threads."""

    def __init__(self, field: Field, missing: Sequence[str] = EMPTY, beside: str = "") -> None:
        """As `as_ids` has them."""
        self._field, self._missing, self._beside = field, missing, beside
        self._type = pl.Categorical(pl.Categories.random("ids"))
        # The dictionary lives as long as a column of its type does.
        self._keeps = pl.Series([], dtype=self._type)

    def numbers(self, batch: pl.Series, start: int) -> Numbers:
        """Ids by the numbers of the dictionary, uint32, shape (rows,).

        Args:
            batch: some rows of the column.
            start: place of the first of them in the whole column.

        Raises:
            UserError: another type than strings and whole numbers.
        """
        texts = id_texts(batch, self._field.at(start), self._missing, self._beside)
        return texts.cast(self._type).to_physical().fill_null(_NONE).to_numpy()

    def distinct(self, numbers: Numbers) -> Distinct:
        """The different ids of the whole column, given what `numbers` made of all its batches.

        Raises:
            UserError: a row without an id, or with one that counts as missing (names the first).
        """
        if len(numbers) and numbers.max() == _NONE:
            self._refuse_first(numbers, numbers == _NONE)
        rows = occurrences(numbers, int(numbers.max(initial=0)) + 1)
        used = np.flatnonzero(rows)
        ids = self._ids(used)
        gone = used[missing_texts(ids, self._missing).to_numpy()]
        if len(gone):
            self._refuse_first(numbers, np.isin(numbers, gone))
        return Distinct(ids, rows[used], used)

    def _ids(self, numbers: npt.NDArray[np.integer]) -> pl.Series:
        return pl.Series(numbers.astype(np.uint32)).cat.to(self._type).cast(pl.String)

    def _refuse_first(self, numbers: Numbers, bad: npt.NDArray[np.bool_]) -> None:
        row = int(np.argmax(bad))
        refuse_id(self._field, row, None if numbers[row] == _NONE else self._ids(numbers[row : row + 1])[0])


def sorted_ids(distinct: Distinct, names: pl.Series) -> tuple[pl.Series, IntArray]:
    """Ids sorted, each once, and a table of their places among them, by the dictionary's numbers.

    Args:
        distinct: the different ids of a column.
        names: what each of them is to be called; several may have one name.
    """
    order = names.arg_sort()
    ids = names.gather(order)
    begins = (ids != ids.shift(1)).fill_null(True)
    table = np.zeros(int(distinct.numbers.max(initial=-1)) + 1, np.int32)
    table[distinct.numbers[order.to_numpy()]] = np.cumsum(begins.to_numpy(), dtype=np.int32) - 1
    return ids.filter(begins), table


def as_places(numbers: Numbers, table: IntArray) -> IntArray:
    """The same column as places among the sorted ids, int32, written over `numbers`."""
    return gathered(table, numbers, out=numbers.view(np.int32))
