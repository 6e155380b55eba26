"""Scores of a block of users, with or without a place for every item: best items, ranks of targets, scores of some.

Knows numbers; knows nothing of how they come about. Of equal scores the lower index wins. Axes: B users, N items, K
items of a list, H items of a history, W entries of the fullest row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from prorec_core.data.sequences import IntArray, Longs, Sequences
from prorec_core.metrics.top import TopItems, padded_histories, top_from_scores

Floats = npt.NDArray[np.float32]


class Scored(ABC):
    """Scores of some users' items; histories, where given, are what lists leave out."""

    @abstractmethod
    def top(self, k: int, left_out: Sequences | None) -> TopItems:
        """The k best items of each user."""

    @abstractmethod
    def of(self, items_BH: Longs) -> Floats:
        """The scores of given items, -1 standing for any."""

    @abstractmethod
    def ranks(self, targets_B: IntArray, left_out: Sequences | None) -> IntArray:
        """Place of each user's target among all items, from 1; 0 where it is left out or no item."""


@dataclass(frozen=True)
class Dense(Scored):
    """A score for every item, float32, shape (B, N)."""

    scores_BN: Floats

    def top(self, k: int, left_out: Sequences | None) -> TopItems:
        forbidden = None if left_out is None else torch.from_numpy(padded_histories(left_out))
        return top_from_scores(torch.from_numpy(self.scores_BN), k, forbidden)

    def of(self, items_BH: Longs) -> Floats:
        return np.take_along_axis(self.scores_BN, np.maximum(items_BH, 0), 1)

    def ranks(self, targets_B: IntArray, left_out: Sequences | None) -> IntArray:
        scores_BN, n_items = self.scores_BN, self.scores_BN.shape[1]
        if left_out is not None:
            scores_BN = scores_BN.copy()
            scores_BN[_users(left_out), left_out.items] = -np.inf
        known_B = targets_B < n_items
        own_B1 = np.take_along_axis(scores_BN, np.where(known_B, targets_B, 0)[:, None].astype(np.int64), 1)
        equal_BN = (scores_BN == own_B1) & (np.arange(n_items) < targets_B[:, None])
        places_B = 1 + ((scores_BN > own_B1) | equal_BN).sum(1)
        return np.where(known_B & (own_B1[:, 0] > -np.inf), places_B, 0).astype(np.int32)


@dataclass(frozen=True)
class Sparse(Scored):
    """Scores above 0 where there are any, 0 everywhere else; float32, shape (B, N), rows in any order."""

    scores: sparse.csr_matrix

    def top(self, k: int, left_out: Sequences | None) -> TopItems:
        kept = self._without(left_out)
        n_items, lengths_B = kept.shape[1], np.diff(kept.indptr)
        count, width = min(k, n_items), max(int(lengths_B.max(initial=0)), 1)
        inside_BW = np.arange(width) < lengths_B[:, None]
        values_BW, items_BW = np.full(inside_BW.shape, -np.inf, np.float32), np.full(inside_BW.shape, -1, np.int32)
        values_BW[inside_BW], items_BW[inside_BW] = kept.data, kept.indices
        best = top_from_scores(torch.from_numpy(values_BW), count)
        items_BK = np.where(
            best.items_UK >= 0, np.take_along_axis(items_BW, np.maximum(best.items_UK, 0).astype(np.int64), 1), -1
        )
        scores_BK = best.scores_UK.copy()
        if len(short := np.flatnonzero(lengths_B < count)):
            # What scores nothing comes after it, the lowest index first.
            filled = self._first_of_none(short, count, left_out)
            place_RK = np.arange(count) - lengths_B[short][:, None]
            moved_RK = np.take_along_axis(filled, np.maximum(place_RK, 0), 1)
            items_BK[short] = np.where(place_RK >= 0, moved_RK, items_BK[short])
            scores_BK[short] = np.where(place_RK >= 0, np.where(moved_RK >= 0, 0, -np.inf), scores_BK[short])
        beyond = ((0, 0), (0, k - count))
        return TopItems(
            np.pad(items_BK, beyond, constant_values=-1).astype(np.int32),
            np.pad(scores_BK, beyond, constant_values=-np.inf).astype(np.float32),
        )

    def of(self, items_BH: Longs) -> Floats:
        rows = np.repeat(np.arange(len(items_BH)), items_BH.shape[1])
        if not len(rows):
            return np.zeros(items_BH.shape, np.float32)
        found = np.asarray(self.scores[rows, np.maximum(items_BH, 0).ravel()])
        return found.reshape(items_BH.shape).astype(np.float32)

    def ranks(self, targets_B: IntArray, left_out: Sequences | None) -> IntArray:
        (n_users, n_items), known_B = self.scores.shape, targets_B < self.scores.shape[1]
        asked_B = np.where(known_B, targets_B, 0).astype(np.int64)
        own_B = self.of(asked_B[:, None])[:, 0]
        of_row = np.repeat(np.arange(n_users), np.diff(self.scores.indptr))
        # Few entries are as good as a target that scores anything.
        rival = np.flatnonzero((self.scores.data >= own_B[of_row]) & (self.scores.data > 0))
        keys, missing_B = np.zeros(0, np.int64), np.zeros(n_users, np.bool_)
        users, items, values = of_row[rival], self.scores.indices[rival], self.scores.data[rival]
        if left_out is not None:
            keys = self._keys(left_out)
            missing_B = _among(np.arange(n_users) * n_items + asked_B, keys)
            free = ~_among(users * n_items + items, keys)
            users, items, values = users[free], items[free], values[free]
        lower = items < asked_B[users]
        places_B = 1 + np.bincount(users[(values > own_B[users]) | lower], minlength=n_users)
        # Before a target that scores nothing stand those below it that score nothing either.
        masked_users, masked_items = np.divmod(keys, n_items)
        taken_B = np.bincount(users[lower], minlength=n_users)
        taken_B += np.bincount(masked_users[masked_items < asked_B[masked_users]], minlength=n_users)
        places_B += np.where(own_B > 0, 0, asked_B - taken_B)
        return np.where(known_B & ~missing_B, places_B, 0).astype(np.int32)

    def _keys(self, histories: Sequences) -> Longs:
        """User and item of all that users have, each once, as one number, ascending."""
        return np.unique(_users(histories) * self.scores.shape[1] + histories.items)

    def _without(self, left_out: Sequences | None) -> sparse.csr_matrix:
        """The entries above 0 of items that are not left out."""
        scores, n_items = self.scores.sorted_indices(), self.scores.shape[1]
        kept = scores.data > 0
        if left_out is not None and len(kept):
            of_row = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
            entries, keys = of_row * n_items + scores.indices, self._keys(left_out)
            places = np.minimum(np.searchsorted(entries, keys), len(entries) - 1)
            kept[places[entries[places] == keys]] = False
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        return sparse.csr_matrix((scores.data[kept], scores.indices[kept], before[scores.indptr]), scores.shape)

    def _first_of_none(self, rows: Longs, count: int, left_out: Sequences | None) -> IntArray:
        """The lowest items of some users that score nothing and are not left out, -1 where they end."""
        n_items = self.scores.shape[1]
        of_row = np.repeat(np.arange(self.scores.shape[0]), np.diff(self.scores.indptr))[
            positive := self.scores.data > 0
        ]
        taken = [of_row * n_items + self.scores.indices[positive]]
        longest = int(np.diff(self.scores.indptr)[rows].max(initial=0))
        if left_out is not None:
            taken.append(self._keys(left_out))
            longest += int(np.diff(left_out.offsets)[rows].max(initial=0))
        depth = min(count + longest, n_items)
        free = ~_among(rows[:, None] * n_items + np.arange(depth), np.unique(np.concatenate(taken)))
        slots = np.cumsum(free, axis=1)
        found = np.full((len(rows), count), -1, np.int32)
        row, item = np.nonzero(free & (slots <= count))
        found[row, slots[row, item] - 1] = item
        return found


def _users(histories: Sequences) -> Longs:
    return np.repeat(np.arange(histories.n_users), np.diff(histories.offsets))


def _among(asked: Longs, ascending: Longs) -> npt.NDArray[np.bool_]:
    """Whether each number is one of some that ascend."""
    if not len(ascending):
        return np.zeros(asked.shape, np.bool_)
    places = np.minimum(np.searchsorted(ascending, asked), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[places] == asked
    return found
