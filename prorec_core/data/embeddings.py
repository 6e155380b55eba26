"""Embeddings of items as Parquet. Knows one file's layout; knows nothing of what the numbers mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prorec_core.artifacts import read_parquet, write_parquet
from prorec_core.errors import UserError

FloatArray = npt.NDArray[np.float32]


def write_embeddings(path: Path, embeddings: FloatArray) -> None:
    """Write float32 rows of shape (items, dims) as the columns item int32, embedding fixed_size_list<float32>."""
    n_items, dims = embeddings.shape
    values = pa.array(np.ascontiguousarray(embeddings, dtype=np.float32).reshape(-1))
    table = pa.table(
        {
            "item": pa.array(np.arange(n_items, dtype=np.int32)),
            "embedding": pa.FixedSizeListArray.from_arrays(values, dims),
        }
    )
    write_parquet(path, table)


def read_embeddings(path: Path, stage: str) -> FloatArray:
    """Read what `write_embeddings` wrote: float32, shape (items, dims), row i for item i.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    table = read_parquet(path, stage)
    if "embedding" not in table.column_names or not pa.types.is_fixed_size_list(table.schema.field("embedding").type):
        raise UserError("the table holds no embeddings", place=str(path), cure=f"Run the stage '{stage}' again")
    column = table.column("embedding").combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False)
    return np.array(values, dtype=np.float32).reshape(-1, column.type.list_size)
