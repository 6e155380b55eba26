"""Item vectors of one's own: a Parquet file with a vector an item. Knows that file; knows nothing of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prorec_core.artifacts import sha256_file
from prorec_core.config_data import TextConfig
from prorec_core.errors import UserError
from prorec_core.progress import Progress, Report
from prorec_core.text.base import Encoder, FloatArray

VECTORS = "embedding"
"""The column of vectors."""
_COLUMNS = ("item_id", VECTORS)
_SAID = 3


class GivenVectors(Encoder):
    """Looks items up in the file that `text.model` names: columns `item_id`, and `embedding`, a list of numbers."""

    def __init__(self, place: str, row_of: dict[str, int], vectors_RS: FloatArray) -> None:
        self.place, self.row_of, self.vectors_RS = place, row_of, vectors_RS

    @classmethod
    def digest(cls, config: TextConfig) -> str:
        return sha256_file(_file(config))

    @classmethod
    def open(cls, config: TextConfig, device: str) -> Self:
        del device
        path = _file(config)
        try:
            with path.open("rb") as stream:
                table = pq.read_table(stream)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"the vectors cannot be read ({error})", place=str(path), cure="Give a Parquet file"
            ) from error
        if missing := [name for name in _COLUMNS if name not in table.column_names]:
            raise UserError(
                f"there is no column '{missing[0]}' but {', '.join(table.column_names)}",
                place=str(path),
                cure="Name the columns item_id and embedding",
            )
        ids = pc.cast(table["item_id"], pa.string()).to_pylist()
        row_of = {item: row for row, item in enumerate(ids)}
        if len(row_of) < len(ids):
            twice = next(row for row, item in enumerate(ids) if row_of[item] != row)
            raise UserError(
                f"row {twice + 1:,}: item_id '{ids[twice]}' stands there twice", place=str(path), cure="Keep one"
            )
        return cls(str(path), row_of, vectors_of(table[VECTORS], ids, str(path)))

    def encode(self, item_ids: list[str], texts: list[str], report: Report) -> FloatArray:
        without = [item for item in item_ids if item not in self.row_of]
        if without:
            named = ", ".join(without[:_SAID]) + (", …" if len(without) > _SAID else "")
            raise UserError(
                f"{len(without):,} of {len(item_ids):,} items have no vector: {named}",
                place=self.place,
                cure="Add them, or leave these items out of the items file",
            )
        report(Progress(len(texts), len(texts), "item"))
        return self.vectors_RS[[self.row_of[item] for item in item_ids]]


def _file(config: TextConfig) -> Path:
    path = Path(config.model).expanduser()
    if not path.is_file():
        raise UserError(
            "there is no such file", place=f"text.model={config.model}", cure="Name the Parquet file with the vectors"
        )
    return path


def vectors_of(column: pa.ChunkedArray | pa.Array, ids: list[str], place: str) -> FloatArray:
    """The vectors in a column of lists as a matrix, float32, shape (rows, s).

    Args:
        column: a list of numbers a row.
        ids: the rows' item ids, for messages.
        place: where they come from.

    Raises:
        UserError: a row has no vector, one of another length, or a number that is not finite.
    """
    if isinstance(column, pa.ChunkedArray):
        rows = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    else:
        rows = column
    kind = rows.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise UserError(f"the column 'embedding' is {kind}", place=place, cure="Give lists of numbers")
    lengths = pc.list_value_length(rows).to_numpy(zero_copy_only=False)
    longest = int(np.nanmax(lengths, initial=0))
    if not longest:
        raise UserError("no item has a vector", place=place, cure="Give every item one of the same length")
    odd = np.flatnonzero(lengths != longest)
    if len(odd):
        row = int(odd[0])
        raise UserError(
            f"row {row + 1:,}, item_id '{ids[row]}': its vector has not {longest} numbers as others have",
            place=place,
            cure="Give every item a vector of the same length",
        )
    found: FloatArray = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, longest)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise UserError(
            f"row {int(bad[0]) + 1:,}, item_id '{ids[int(bad[0])]}': its vector holds what is no finite number",
            place=place,
            cure="Give finite numbers",
        )
    return found
