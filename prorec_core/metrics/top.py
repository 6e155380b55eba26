"""Top lists and the rank of a target in them. Knows items by their index; knows nothing of models or texts.

Axes: U users, N items of the catalogue, K items of a list, H items of a history (padded with -1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prorec_core.data.sequences import IntArray, Sequences

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TopItems:
    """Items recommended to each user, best first, no item twice.

    Attributes:
        items_UK: item indices, int32, shape (U, K), -1 where there is none; those stand at the end.
        scores_UK: float32, shape (U, K), falling along K, -inf where there is no item.
    """

    items_UK: IntArray
    scores_UK: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.items_UK.ndim != 2 or self.items_UK.shape != self.scores_UK.shape:
            raise ValueError(f"items {self.items_UK.shape} and scores {self.scores_UK.shape} must be equal (U, K)")

    @property
    def n_users(self) -> int:
        return int(self.items_UK.shape[0])

    @property
    def length(self) -> int:
        return int(self.items_UK.shape[1])


def rank_of_target(items_UK: IntArray, targets_U: IntArray) -> IntArray:
    """Place of each user's target in the user's list, from 1; 0 where it is not there. int32, shape (U,).

    >>> rank_of_target(np.array([[7, 3, 5], [2, 0, -1]]), np.array([5, 9])).tolist()
    [3, 0]
    """
    found_UK = (items_UK == targets_U[:, None]) & (items_UK >= 0)
    if not found_UK.shape[1]:
        return np.zeros(len(targets_U), np.int32)
    return np.where(found_UK.any(axis=1), found_UK.argmax(axis=1) + 1, 0).astype(np.int32)


def padded_histories(histories: Sequences) -> npt.NDArray[np.int64]:
    """Each user's items, int64, shape (U, H), H the longest history, padded with -1 at the end.

    Made for a batch of users (`Sequences.select`): what `top_from_scores` and beam search must leave out.
    """
    lengths = np.diff(histories.offsets)
    width = int(lengths.max(initial=0))
    padded_UH = np.full((histories.n_users, width), -1, np.int64)
    padded_UH[np.arange(width) < lengths[:, None]] = histories.items
    return padded_UH


def own_items(histories: Sequences, *, by_count: bool = False) -> tuple[Places, Places, Places]:
    """Each user's different items with their places in that user's list, the latest first.

    Args:
        histories: users' items.
        by_count: those that stand there most often first; of equal ones the later.

    Returns:
        User (ascending), item and place from 0, each int64, as many as there are different items of all users.
    """
    lengths, size = np.diff(histories.offsets), int(histories.items.max(initial=0)) + 1
    rows = np.repeat(np.arange(histories.n_users), lengths)
    # What comes last in a history is found first from behind.
    pairs, behind, times = np.unique((rows * size + histories.items)[::-1], return_index=True, return_counts=True)
    users, items = np.divmod(pairs, size)
    order = np.lexsort((behind, -times if by_count else np.zeros_like(times), users))
    users, items = users[order], items[order]
    return users, items, np.arange(len(users)) - np.searchsorted(users, users, side="left")


def latest_items(histories: Sequences, count: int) -> Places:
    """Each user's latest different items, the very latest first, int64, shape (U, at most count), padded with -1."""
    users, items, places = own_items(histories)
    near = places < count
    found = np.full((histories.n_users, int(places[near].max(initial=-1)) + 1), -1, np.int64)
    found[users[near], places[near]] = items[near]
    return found


def best_places(scores_UM: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best scores of each row (all, where it has no more) and their places, ordered by place.

    Of equal scores those at the first places win, on every device: `topk` alone leaves open which it takes, so rows
    in which equal scores stand on both sides of the cut are settled here. Where the cut is at -inf, any place may
    stand for another. What is not a number counts as best.
    """
    count = min(count, scores_UM.shape[1])
    values, places = scores_UM.topk(min(count + 1, scores_UM.shape[1]), dim=1)
    if values.shape[1] > count:
        cut = values[:, count - 1 : count]
        rows = ((cut == values[:, count:]) & (cut > -torch.inf)).nonzero()[:, 0]
        places = places[:, :count]
        if len(rows):
            scores, cut = scores_UM[rows], cut[rows]
            above, equal = ~(scores <= cut), scores == cut
            room = count - above.sum(dim=1, keepdim=True)
            taken = above | (equal & (equal.cumsum(dim=1) <= room))
            places[rows] = taken.nonzero()[:, 1].view(-1, count)
    places = places.sort(dim=1).values
    return scores_UM.gather(1, places), places


@torch.no_grad()
def top_from_scores(scores_UN: Tensor, k: int, forbidden_items_UH: Tensor | None = None) -> TopItems:
    """The K best items of each user; of items with equal scores the lower index comes first, on every device.

    Args:
        scores_UN: a score for every item of the catalogue, floating point; an item at -inf is never listed.
        k: items a list; where fewer are left, the list ends with -1.
        forbidden_items_UH: items to leave out, int64, padded with -1; an item may stand there twice.

    Raises:
        ValueError: a score is not a number.
    """
    scores_UN = scores_UN.float()
    if forbidden_items_UH is not None:
        user, place = (forbidden_items_UH >= 0).nonzero(as_tuple=True)
        scores_UN = scores_UN.index_put((user, forbidden_items_UH[user, place]), scores_UN.new_tensor(-torch.inf))
    n_users, n_items = scores_UN.shape
    count = min(k, n_items)
    values, places = best_places(scores_UN, count)
    if bool(values.isnan().any()):
        raise ValueError("a score is not a number")
    values, order = values.sort(dim=1, descending=True, stable=True)
    items = places.gather(1, order).masked_fill(values == -torch.inf, -1)
    items_UK = np.full((n_users, k), -1, np.int32)
    scores_UK = np.full((n_users, k), -np.inf, np.float32)
    items_UK[:, :count] = items.cpu().numpy()
    scores_UK[:, :count] = values.cpu().numpy()
    return TopItems(items_UK, scores_UK)
