"""A column of ids as numbers, batch by batch: what an id is, is asked once of each, whatever the number of its rows.

Knows ids, what counts as a missing one, and rows for messages. Knows nothing of formats of files or of filters.

Each batch becomes numbers by a dictionary that all batches share, so no more texts are in memory than those of a few
batches and the different ones. In which order threads meet the texts is chance; the numbers that are handed on are
places among the sorted ids and depend on nothing but the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.columns import EMPTY, Field, id_texts, missing_texts, refuse_id
from prorec_core.data.counting import gathered, occurrences
from prorec_core.data.dictionary import NONE, Dictionary, Numbers
from prorec_core.data.sequences import IntArray


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
        self._dictionary = Dictionary()

    def numbers(self, batch: pl.Series, start: int) -> Numbers:
        """Ids by the numbers of a dictionary, uint32, shape (rows,).

        Args:
            batch: some rows of the column.
            start: place of the first of them in the whole column.

        Raises:
            UserError: another type than strings and whole numbers.
        """
        return self._dictionary.numbers(id_texts(batch, self._field.at(start), self._missing, self._beside))

    def distinct(self, numbers: Numbers) -> Distinct:
        """The different ids of the whole column, given what `numbers` made of all its batches.

        Raises:
            UserError: a row without an id, or with one that counts as missing (names the first).
        """
        if len(numbers) and numbers.max() == NONE:
            self._refuse_first(numbers, numbers == NONE)
        rows = occurrences(numbers, int(numbers.max(initial=0)) + 1)
        used = np.flatnonzero(rows)
        ids = self._dictionary.texts(used)
        gone = used[missing_texts(ids, self._missing).to_numpy()]
        if len(gone):
            self._refuse_first(numbers, np.isin(numbers, gone))
        return Distinct(ids, rows[used], used)

    def _refuse_first(self, numbers: Numbers, bad: npt.NDArray[np.bool_]) -> None:
        row = int(np.argmax(bad))
        refuse_id(self._field, row, None if numbers[row] == NONE else self._dictionary.texts(numbers[row : row + 1])[0])


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
