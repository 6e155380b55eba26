"""What preprocessing leaves: items, users, sequences and their profile, in memory and as files.

Knows the layout of those four files. Knows nothing of where the data came from or of what is trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from prorec_core.artifacts import read_json, read_parquet, write_json, write_parquet
from prorec_core.data.sequences import Sequences

_STAGE = "preprocess"
_ITEMS = pa.schema(
    [
        ("item", pa.int32()),
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("train_count", pa.int64()),
    ]
)
_USERS = pa.schema([("user", pa.int32()), ("user_id", pa.string())])


@dataclass(frozen=True)
class Dataset:
    """A shop's data, ready for training and for the leave-one-out split.

    Attributes:
        items: one row an item, sorted by `item_id`: item (int32, 0 to n_items - 1), item_id, title, text (strings)
            and train_count (int64, occurrences in the training part of the sequences).
        users: one row a user, sorted by `user_id`: user (int32), user_id (string).
        sequences: every user's items in order of time.
        timestamps: int64, aligned with `sequences.items`.
        profile: counts before and after each filter, quantiles of history lengths, ties; plain JSON values.
    """

    items: pl.DataFrame
    users: pl.DataFrame
    sequences: Sequences
    timestamps: npt.NDArray[np.int64]
    profile: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write items.parquet, users.parquet, sequences.parquet and profile.json."""
        offsets = pa.array(self.sequences.offsets.astype(np.int32))
        sequences = pa.table(
            {
                "user": pa.array(np.arange(self.sequences.n_users, dtype=np.int32)),
                "items": pa.ListArray.from_arrays(offsets, pa.array(self.sequences.items)),
                "timestamps": pa.ListArray.from_arrays(offsets, pa.array(self.timestamps)),
            }
        )
        write_parquet(folder / "items.parquet", self.items.to_arrow().cast(_ITEMS), _STAGE)
        write_parquet(folder / "users.parquet", self.users.to_arrow().cast(_USERS), _STAGE)
        write_parquet(folder / "sequences.parquet", sequences, _STAGE)
        write_json(folder / "profile.json", self.profile)

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Read what `save` wrote.

        Raises:
            UserError: the files were written by an incompatible version of this software.
        """
        items = _frame(read_parquet(folder / "items.parquet", _STAGE))
        table = read_parquet(folder / "sequences.parquet", _STAGE)
        lists = table.column("items").combine_chunks()
        lengths = np.diff(lists.offsets.to_numpy())
        sequences = Sequences(
            items=lists.flatten().to_numpy().astype(np.int32),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]),
            n_items=items.height,
        )
        return cls(
            items=items,
            users=_frame(read_parquet(folder / "users.parquet", _STAGE)),
            sequences=sequences,
            timestamps=table.column("timestamps").combine_chunks().flatten().to_numpy().astype(np.int64),
            profile=read_json(folder / "profile.json"),
        )


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table.replace_schema_metadata(None)))
