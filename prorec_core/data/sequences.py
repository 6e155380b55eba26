"""Users' histories as flat arrays, and the leave-one-out split. Knows nothing of files, frames or models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


class Split(Enum):
    """What a history is used for; the value is how many of its last items are held back from it."""

    TRAIN = 2
    VALIDATION = 1
    TEST = 0


@dataclass(frozen=True)
class Sequences:
    """Every user's items in order of time, without padding.

    Attributes:
        items: item indices of all users, one user after the other, int32, shape (interactions,).
        offsets: user `u` owns `items[offsets[u]:offsets[u + 1]]`, int64, shape (users + 1,).
        n_items: size of the catalogue; item indices run from 0 to n_items - 1.
        held_back: how many of each user's last items no model trains on: the validation and the test item, or the
            test item alone.
    """

    items: IntArray
    offsets: npt.NDArray[np.int64]
    n_items: int
    held_back: int = Split.TRAIN.value

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    def of_user(self, user: int) -> IntArray:
        """All items of one user, in order."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def lengths(self, split: Split) -> npt.NDArray[np.int64]:
        """Length of each user's sequence in a split, the target included, shape (users,)."""
        lengths: npt.NDArray[np.int64] = np.maximum(np.diff(self.offsets) - split.value, 0)
        return lengths

    def histories(self, split: Split) -> Sequences:
        """What a model may see before it predicts the target of `split` (VALIDATION or TEST)."""
        return self._without_last(split.value + 1)

    def training(self) -> Sequences:
        """What a model may train on: everything but the items held back."""
        return self._without_last(self.held_back)

    @property
    def validates(self) -> bool:
        """Whether the validation items measure anything: no model has trained on them."""
        return self.held_back >= Split.TRAIN.value

    def with_validation_in_training(self) -> Sequences:
        """The same sequences, the validation items trained on too."""
        return replace(self, held_back=Split.VALIDATION.value)

    def targets(self, split: Split) -> IntArray:
        """The item to predict for each user in `split` (VALIDATION or TEST), shape (users,)."""
        return self.items[self.offsets[1:] - 1 - split.value]

    def taken_before(self, split: Split) -> npt.NDArray[np.bool_]:
        """Whether each user's target in `split` stands in the history before it too, shape (users,).

        Lists that leave out the history cannot hold it.
        """
        lengths, targets = np.diff(self.offsets), self.targets(split)
        same = np.flatnonzero(np.repeat(targets, lengths) == self.items)
        users = np.searchsorted(self.offsets, same, side="right") - 1
        before = same < self.offsets[users + 1] - 1 - split.value
        found = np.zeros(self.n_users, np.bool_)
        found[users[before]] = True
        return found

    def train_counts(self) -> npt.NDArray[np.int64]:
        """How often each item occurs in the training part, shape (n_items,)."""
        counts: npt.NDArray[np.int64] = np.bincount(self.training().items, minlength=self.n_items)
        return counts

    def select(self, users: npt.NDArray[np.int64]) -> Sequences:
        """The sequences of some users, in the order named."""
        return replace(from_lists([self.of_user(int(user)) for user in users], self.n_items), held_back=self.held_back)

    def _without_last(self, held_back: int) -> Sequences:
        lengths = np.maximum(np.diff(self.offsets) - held_back, 0)
        keep = np.ones(len(self.items), np.bool_)
        for back in range(1, held_back + 1):
            last = self.offsets[1:] - back
            keep[last[last >= self.offsets[:-1]]] = False
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Sequences(self.items[keep], offsets, self.n_items)


def from_lists(lists: list[IntArray], n_items: int) -> Sequences:
    """Join per-user arrays of item indices into `Sequences`."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(items) for items in lists], dtype=np.int64)])
    items = np.concatenate(lists) if lists else np.zeros(0, np.int32)
    return Sequences(items.astype(np.int32), offsets, n_items)
