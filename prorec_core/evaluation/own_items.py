"""Recommending again what a user has: what was taken most often, or last. Knows histories and counts; knows no models.

Where people buy again this is what a model has to beat. Axes: U users, K items of a list.
"""

from __future__ import annotations

import numpy as np

from prorec_core.data.sequences import Sequences
from prorec_core.evaluation.baselines import popularity_lists
from prorec_core.metrics.top import TopItems, own_items


def often_taken_lists(training: Sequences, histories: Sequences, k: int, *, masked: bool) -> TopItems:
    """What the user took most often, of equal ones the later; then what is popular and the user never took.

    Args:
        training: what popularity may be counted in.
        histories: each user's items.
        k: items a list; where fewer are left, the list ends with -1.
        masked: never recommend what the user already has, which leaves what is popular.

    Returns:
        Lists whose scores tell the order alone.
    """
    return _own_first(training, histories, k, masked=masked, by_count=True)


def lately_taken_lists(training: Sequences, histories: Sequences, k: int, *, masked: bool) -> TopItems:
    """What the user took last, the latest first; then what is popular and the user never took. As above."""
    return _own_first(training, histories, k, masked=masked, by_count=False)


def _own_first(training: Sequences, histories: Sequences, k: int, *, masked: bool, by_count: bool) -> TopItems:
    popular = popularity_lists(training, histories, k, masked=True)
    items_UK = popular.items_UK.copy()
    if not masked:
        users, items, slots = own_items(histories, by_count=by_count)
        counts = np.minimum(np.bincount(users, minlength=histories.n_users), k)
        # What is popular moves behind what is the user's own.
        place_UK = np.arange(k) - counts[:, None]
        moved = np.take_along_axis(popular.items_UK, np.maximum(place_UK, 0), 1)
        items_UK = np.where(place_UK >= 0, moved, -1).astype(np.int32)
        shown = slots < k
        items_UK[users[shown], slots[shown]] = items[shown]
    order = -np.arange(k, dtype=np.float32)
    return TopItems(items_UK, np.where(items_UK >= 0, order, -np.inf).astype(np.float32))
