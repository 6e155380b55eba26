"""Recommending again what a user has: what was taken most often, or last. Knows histories and counts; knows no models.

Where people buy again this is what a model has to beat. Axes: U users, K items of a list.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prorec_core.data.sequences import Sequences
from prorec_core.evaluation.baselines import popularity_lists
from prorec_core.metrics.top import TopItems


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
        users, items, slots = _in_order(histories, by_count=by_count)
        counts = np.minimum(np.bincount(users, minlength=histories.n_users), k)
        # What is popular moves behind what is the user's own.
        place_UK = np.arange(k) - counts[:, None]
        moved = np.take_along_axis(popular.items_UK, np.maximum(place_UK, 0), 1)
        items_UK = np.where(place_UK >= 0, moved, -1).astype(np.int32)
        shown = slots < k
        items_UK[users[shown], slots[shown]] = items[shown]
    order = -np.arange(k, dtype=np.float32)
    return TopItems(items_UK, np.where(items_UK >= 0, order, -np.inf).astype(np.float32))


def _in_order(
    histories: Sequences, *, by_count: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each user's different items with their places in that user's list: user, item, place."""
    lengths, size = np.diff(histories.offsets), max(histories.n_items, int(histories.items.max(initial=0)) + 1)
    rows = np.repeat(np.arange(histories.n_users), lengths)
    # What comes last in a history is found first from behind.
    pairs, behind, times = np.unique((rows * size + histories.items)[::-1], return_index=True, return_counts=True)
    users, items = np.divmod(pairs, size)
    order = np.lexsort((behind, -times if by_count else np.zeros_like(times), users))
    users, items = users[order], items[order]
    firsts = np.searchsorted(users, users, side="left")
    return users, items, np.arange(len(users)) - firsts
