"""A data set as tables for other programs: what each interaction is for, so that they train and are asked as we are.

Knows data sets and their splits; knows nothing of files.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Split

HELD_BACK = (Split.VALIDATION, Split.TEST)


def interactions(dataset: Dataset) -> pl.DataFrame:
    """All interactions of a data set, one row each, users in order and each in order of time.

    Those with new items that leave-one-out holds out (data.new_items) are none of them.

    Returns:
        user_id, item_id (strings); timestamp (int64, as the data have it); position (int64, from 0, in the user's
        sequence); split: `train` (what models here train on), `history` (known before a target, trained on by none: of
        users with too few items, or of items that are new), `validation`, `test`; target (bool): whether it is asked
        for, after all that comes before it in the sequence. Where the data set has models train on the validation
        items, these are `train`, or `history`, and no targets.
    """
    sequences = dataset.sequences
    lengths = np.diff(sequences.offsets)
    owners = np.repeat(np.arange(sequences.n_users), lengths)
    positions = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], lengths)
    if sequences.borders is None:
        validation, test = np.maximum(lengths - Split.TRAIN.value, 0), np.maximum(lengths - Split.VALIDATION.value, 0)
    else:
        validation, test = sequences.borders.validation_from, sequences.borders.test_from
    # Whom training leaves out, for too few items.
    trains = np.diff(sequences.training().offsets) > 0
    known = sequences.items < sequences.n_items
    stretch = (positions >= validation[owners]).astype(int) + (positions >= test[owners])
    if not sequences.validates:
        stretch[stretch == 1] = 0
    names = np.array(["train", "validation", "test"], dtype=object)[stretch]
    names[(stretch == 0) & ~(trains[owners] & known)] = "history"
    target = np.zeros(len(owners), np.bool_)
    for split in HELD_BACK if sequences.validates else (Split.TEST,):
        target[sequences.offsets[sequences.owners_of(split)] + sequences.positions(split)] = True
    return pl.DataFrame(
        {
            "user_id": dataset.users["user_id"].gather(owners),
            "item_id": dataset.all_items()["item_id"].gather(sequences.items),
            "timestamp": dataset.timestamps,
            "position": positions,
            "split": pl.Series(names.tolist(), dtype=pl.String),
            "target": target,
        }
    )


def items(dataset: Dataset) -> pl.DataFrame:
    """All items, one row each: item_id, title, text (strings), new (bool): it is in no training, and in no list."""
    place = pl.int_range(pl.len()) >= dataset.items.height
    return dataset.all_items().select("item_id", "title", "text", new=place)
