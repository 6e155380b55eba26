"""Item vectors that are in a file: read, and what is wrong with them said in one line.

Knows columns of lists and ids; knows nothing of what the vectors are for. Axes: R rows, S dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prorec_core.data.columns import as_ids
from prorec_core.data.tables import Place
from prorec_core.errors import UserError
from prorec_core.paths import path_of

FloatArray = npt.NDArray[np.float32]
_ID = "item_id"
_SAID = 3


@dataclass(frozen=True)
class VectorTable:
    """Vectors by item id.

    Attributes:
        place: where they are, for messages.
        row_of: the row of each id.
        vectors_RS: float32; zero where a row has none.
        there_R: whether a row has one, bool.
    """

    place: str
    row_of: dict[str, int]
    vectors_RS: FloatArray
    there_R: npt.NDArray[np.bool_]

    def of(self, item_ids: Sequence[str]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """The items' vectors, zero where there is none, shape (items, S), and whether there is one.

        Raises:
            UserError: no item at all has one.
        """
        rows = np.array([self.row_of.get(item, -1) for item in item_ids], dtype=np.int64)
        there = rows >= 0
        if item_ids and not there.any():
            raise UserError(
                f"none of the {len(item_ids):,} items is there: they are like '{item_ids[0]}', and it has "
                f"'{next(iter(self.row_of))}'",
                place=self.place,
                cure="Write the ids as the items file has them",
            )
        found = np.zeros((len(item_ids), self.vectors_RS.shape[1]), np.float32)
        found[there] = self.vectors_RS[rows[there]]
        there[there] = self.there_R[rows[there]]
        return found, there


def named(items: Sequence[str]) -> str:
    """The first of some items, for a message."""
    return ", ".join(items[:_SAID]) + (", …" if len(items) > _SAID else "")


def existing(path: str, setting: str) -> Path:
    """The file that a setting names.

    Raises:
        UserError: there is none.
    """
    found = path_of(path)
    if not found.is_file():
        raise UserError("there is no such file", place=setting, cure="Name the Parquet file with the vectors")
    return found


def read_file(path: Path, column: str, *, every: bool) -> VectorTable:
    """Vectors from a Parquet file with a column `item_id`.

    Args:
        path: of the file.
        column: the one that holds lists of numbers.
        every: whether each row must have a vector.

    Raises:
        UserError: the file or a row cannot be used.
    """
    place = str(path)
    try:
        with path.open("rb") as stream:
            file = pq.ParquetFile(stream)
            present = file.schema_arrow.names
            if twice := [name for name in (_ID, column) if present.count(name) > 1]:
                raise UserError(
                    f"{present.count(twice[0])} columns have the name '{twice[0]}'",
                    place=place,
                    cure="Keep one of them",
                )
            if missing := [name for name in (_ID, column) if name not in present]:
                raise UserError(
                    f"there is no column '{missing[0]}' but {', '.join(present)}",
                    place=place,
                    cure=f"Name the columns {_ID} and {column}",
                )
            table = file.read([_ID, column])
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"the vectors cannot be read ({said})", place=place, cure="Give a Parquet file") from error
    ids = as_ids(pl.Series(_ID, table[_ID]), place).to_list()
    return table_of(ids, table[column], column, place, every=every)


def table_of(
    ids: Sequence[str | None], values: pa.ChunkedArray, column: str, place: str, *, every: bool
) -> VectorTable:
    """Vectors in a column of lists.

    Args:
        ids: the rows' item ids.
        values: the column.
        column: its name, for messages.
        place: where it is.
        every: whether each row must have a vector.

    Raises:
        UserError: a row cannot be used.
    """
    row = Place.of(place).row
    known: dict[str, int] = {}
    for number, item in enumerate(ids):
        if item is None:
            raise UserError(f"{row(number)} has no {_ID}", place=place, cure="Give it one, or drop the row")
        if item in known:
            raise UserError(f"{row(known[item])}: {_ID} '{item}' stands there twice", place=place, cure="Keep one")
        known[item] = number
    kind = values.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise UserError(
            f"the column '{column}' is {kind}", place=place, cure="Give lists of numbers, in Parquet or JSON Lines"
        )
    present = np.array(pc.is_valid(values).to_numpy(), dtype=bool)
    there = np.ones(len(values), bool) if every else present
    lengths = np.nan_to_num(pc.list_value_length(values).to_numpy().astype(np.float64), nan=-1).astype(np.int64)
    # What most have is what is meant, of two as frequent the longer.
    found_lengths, times = np.unique(lengths[there & (lengths > 0)], return_counts=True)
    width = int(found_lengths[len(times) - 1 - times[::-1].argmax()]) if len(times) else 0
    if width <= 0:
        raise UserError("no item has a vector", place=place, cure="Give every item one of the same length")
    bad = np.flatnonzero(there & (lengths != width))
    if len(bad):
        _refuse(place, int(bad[0]), ids, f"has not {width} numbers as others have", "a vector of the same length")
    found = np.zeros((len(values), width), np.float32)
    start = 0
    with np.errstate(over="ignore"):
        # One by one: all of them together may be more numbers than a list can count.
        for chunk in values.chunks:
            rows = np.flatnonzero(there[start : start + len(chunk)]) + start
            found[rows] = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
            start += len(chunk)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        _refuse(place, int(bad[0]), ids, "holds what is no finite number", "finite numbers")
    return VectorTable(place, known, found, there)


def _refuse(place: str, row: int, ids: Sequence[str | None], problem: str, wanted: str) -> None:
    where = Place.of(place).row(row)
    raise UserError(f"{where}, {_ID} '{ids[row]}': its vector {problem}", place=place, cure=f"Give every item {wanted}")
