"""A small data set of histories that a test writes down. Knows the columns of a data set; reads no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import from_lists


def data_set(
    histories: Sequence[npt.ArrayLike],
    n_items: int,
    *,
    item_ids: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    user_ids: Sequence[str] | None = None,
    profile: Mapping[str, Any] | None = None,
    step: int = 1,
) -> Dataset:
    """A data set of these histories.

    Args:
        histories: by user the indices of items, the oldest first.
        n_items: how many items there are.
        item_ids: by default i0, i1 and so on.
        texts: of items, their titles too; by default their ids.
        user_ids: by default u0, u1 and so on.
        profile: by default empty.
        step: time from one interaction to the next, over all users.
    """
    sequences = from_lists([np.array(items, np.int32) for items in histories], n_items)
    item_ids = item_ids or [f"i{item}" for item in range(n_items)]
    user_ids = user_ids or [f"u{user}" for user in range(len(histories))]
    return Dataset(
        items=pl.DataFrame(
            {
                "item": np.arange(n_items, dtype=np.int32),
                "item_id": item_ids,
                "title": texts or item_ids,
                "text": texts or item_ids,
                "train_count": sequences.train_counts(),
            }
        ),
        users=pl.DataFrame({"user": np.arange(len(histories), dtype=np.int32), "user_id": user_ids}),
        sequences=sequences,
        timestamps=np.arange(len(sequences.items), dtype=np.int64) * step,
        profile=dict(profile or {}),
    )
