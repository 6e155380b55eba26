"""Was a model trained on what it is now to be measured by? Knows histories of two data sets; knows nothing of models.

What is known is every interaction that a training read, user by user and in order, since the data set of a model is
kept with it. A target counts as seen where its user's training held the item more often than the history now before it
does: the additional time can only be the target itself, or a later one. So a log that has grown since shows nothing,
and one that is cut earlier than the model's, or whose validation items the model was trained on, does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Sequences, Split


def seen_targets(trained: Dataset, training: Sequences, now: Dataset, split: Split) -> npt.NDArray[np.bool_]:
    """Whether a training saw each user's target of a split.

    Args:
        trained: the data set of the training, for the ids of its users and items.
        training: what of it was trained on, by the numbers there.
        now: the data set that is measured on.
        split: VALIDATION or TEST.

    Returns:
        Shape (targets of the split,).
    """
    users_of = _places(trained.users, now.users, "user_id")
    # Targets may be items that training does not know any more, or not yet.
    items_of = _places(trained.all_items(), now.all_items(), "item_id")
    users = users_of[np.repeat(np.arange(training.n_users), np.diff(training.offsets))]
    items, targets = items_of[training.items], now.sequences.targets(split).astype(np.int64)
    both = (users >= 0) & (items >= 0)
    width = int(max(targets.max(initial=0), items.max(initial=0))) + 1
    then = np.sort(users[both] * width + items[both])
    asked = now.sequences.owners_of(split) * np.int64(width) + targets
    times = np.searchsorted(then, asked, "right") - np.searchsorted(then, asked, "left")
    before = now.sequences.histories(split)
    rows = np.repeat(np.arange(before.n_users), np.diff(before.offsets))
    known = np.bincount(rows[before.items == targets[rows]], minlength=len(targets))
    found: npt.NDArray[np.bool_] = times > known
    return found


def _places(then: pl.DataFrame, now: pl.DataFrame, column: str) -> npt.NDArray[np.int64]:
    """Where the ids of one table stand in the other, -1 for those that are not there."""
    place = now.select(column, pl.int_range(pl.len(), dtype=pl.Int64).alias("place"))
    found = then.select(column).join(place, on=column, how="left", maintain_order="left")["place"]
    return found.fill_null(-1).to_numpy()
