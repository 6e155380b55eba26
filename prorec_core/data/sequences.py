"""Users' histories as flat arrays, and what is held back of them. Knows nothing of files, frames or models.

By default leave-one-out: of each user the last item tests and the one before validates. With `Borders` each user has a
stretch of either, which may be empty, and every item in it is a target after all that came before it. Single targets
may be left out of either, so that they are asked of nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]


class Split(Enum):
    """What a history is used for; the value is how many of its last items leave-one-out holds back from it."""

    TRAIN = 2
    VALIDATION = 1
    TEST = 0


@dataclass(frozen=True)
class Borders:
    """Where each user's stretches begin.

    Attributes:
        validation_from: how many of a user's items come before the validation, int64, shape (users,).
        test_from: how many come before the test, at least as many, int64, shape (users,).
        least: a user with fewer known items to train on trains nothing, and is known by the history alone.
        first_only: of a stretch the first item alone is a target.
    """

    validation_from: Longs
    test_from: Longs
    least: int = 1
    first_only: bool = False

    def before(self, held_back: int) -> Longs:
        """How many of each user's items come before what is held back: both stretches, or the test alone."""
        return self.validation_from if held_back >= Split.TRAIN.value else self.test_from

    def select(self, users: npt.NDArray[np.integer]) -> Borders:
        """Those of some users, in the order named."""
        return replace(self, validation_from=self.validation_from[users], test_from=self.test_from[users])


@dataclass(frozen=True)
class Sequences:
    """Every user's items in order of time, without padding; or a history a row, several of one user among them.

    Attributes:
        items: item indices of all users, one user after the other, int32, shape (interactions,).
        offsets: user `u` owns `items[offsets[u]:offsets[u + 1]]`, int64, shape (users + 1,).
        n_items: size of the catalogue; what is trained on has indices from 0 to n_items - 1. Held-back stretches may
            hold items that training never saw, numbered from n_items on.
        held_back: what no model trains on: validation and test, or the test alone (`Split` counts them).
        borders: where these begin; None: leave-one-out.
        owner: of histories before targets, whose each one is, int32, shape (rows,); None: each row is a user's own.
        left_out: whether each item is no target although its place makes it one, bool, shape (interactions,); None:
            none is.
    """

    items: IntArray
    offsets: Longs
    n_items: int
    held_back: int = Split.TRAIN.value
    borders: Borders | None = None
    owner: IntArray | None = None
    left_out: npt.NDArray[np.bool_] | None = None

    @property
    def n_users(self) -> int:
        """How many rows there are."""
        return len(self.offsets) - 1

    @property
    def owners(self) -> IntArray:
        """Whose each row is, int32, shape (rows,)."""
        return np.arange(self.n_users, dtype=np.int32) if self.owner is None else self.owner

    def owned(self) -> Sequences:
        """The same rows, which keep whose they are when some of them are selected."""
        return replace(self, owner=self.owners)

    def of_user(self, user: int) -> IntArray:
        """All items of one user, in order."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def histories(self, split: Split, n_items: int | None = None) -> Sequences:
        """What a model may see before it predicts each target of `split` (VALIDATION or TEST), a row a target.

        Args:
            split: whose targets.
            n_items: size of the catalogue that the model knows, by default that of training; what it does not know is
                passed over, as it is when a model is asked.
        """
        n_items = self.n_items if n_items is None else n_items
        if self._a_target_each:
            return replace(self._without_last(split.value + 1), n_items=n_items)
        owners, places = self.owners_of(split), self._places(split)
        starts = self.offsets[owners]
        lengths = places - starts
        offsets = _offsets(lengths)
        items = self.items[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)]
        return Sequences(items, offsets, n_items, owner=owners)._known(n_items)

    def targets(self, split: Split) -> IntArray:
        """The item of each target in `split` (VALIDATION or TEST), shape (targets,): users in order, each in time."""
        return self.items[self._places(split)]

    def owners_of(self, split: Split) -> IntArray:
        """The user of each target in `split`, ascending, int32, shape (targets,)."""
        everyone = np.arange(self.n_users, dtype=np.int32)
        owners = everyone if self.borders is None else np.repeat(everyone, self._counts(split))
        return owners if self.left_out is None else owners[~self.left_out[self._all_places(split)]]

    def positions(self, split: Split) -> Longs:
        """Where in its user's sequence each target in `split` stands, from 0, int64, shape (targets,)."""
        return self._places(split) - self.offsets[self.owners_of(split)]

    def answerable(self, split: Split) -> Longs:
        """The targets that a model can be asked for: a known item after a history with a known one. Ascending."""
        targets = self.targets(split)
        if self.borders is None:
            return np.arange(len(targets))
        return np.flatnonzero((targets < self.n_items) & self.with_history(split))

    def with_history(self, split: Split) -> npt.NDArray[np.bool_]:
        """Whether an item that training knows stands before each target in `split`, shape (targets,)."""
        places = self._places(split)
        known = np.concatenate([[0], np.cumsum(self.items < self.n_items)])
        found: npt.NDArray[np.bool_] = known[places] > known[self.offsets[self.owners_of(split)]]
        return found

    def training(self) -> Sequences:
        """What a model may train on: everything but the items held back, of items that training knows."""
        if self.borders is None:
            return self._without_last(self.held_back)
        left = self._up_to(self.borders.before(self.held_back))._known(self.n_items)
        lengths = np.diff(left.offsets)
        return left._up_to(np.where(lengths >= self.borders.least, lengths, 0))

    @property
    def validates(self) -> bool:
        """Whether the validation items measure anything: no model has trained on them."""
        return self.held_back >= Split.TRAIN.value

    def with_validation_in_training(self) -> Sequences:
        """The same sequences, the validation items trained on too."""
        return replace(self, held_back=Split.VALIDATION.value)

    def leaving_out(self, split: Split, targets: npt.NDArray[np.bool_]) -> Sequences:
        """The same sequences, some targets of a split no longer asked for; what is trained on stays what it is.

        Args:
            split: whose targets.
            targets: whether each is left out, shape (targets,).
        """
        left_out = np.zeros(len(self.items), np.bool_) if self.left_out is None else self.left_out.copy()
        left_out[self._places(split)[targets]] = True
        return replace(self, left_out=left_out)

    def taken_before(self, split: Split) -> npt.NDArray[np.bool_]:
        """Whether each target in `split` stands in the history before it too, shape (targets,).

        Lists that leave out the history cannot hold it.
        """
        if not self._a_target_each:
            users = np.repeat(np.arange(self.n_users), np.diff(self.offsets))
            key = users * (int(self.items.max(initial=0)) + 1) + self.items
            order = np.argsort(key, kind="stable")
            again = np.zeros(len(key), np.bool_)
            again[order[1:]] = key[order[1:]] == key[order[:-1]]
            return again[self._places(split)]
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

    def select(self, users: npt.NDArray[np.integer]) -> Sequences:
        """The sequences of some users, or some rows, in the order named."""
        lengths = np.diff(self.offsets)[users]
        offsets = _offsets(lengths)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[users] - offsets[:-1], lengths)
        borders = None if self.borders is None else self.borders.select(users)
        owner = None if self.owner is None else self.owner[users]
        left_out = None if self.left_out is None else self.left_out[places]
        return replace(self, items=self.items[places], offsets=offsets, borders=borders, owner=owner, left_out=left_out)

    def differs(self, other: Sequences) -> npt.NDArray[np.bool_]:
        """Whether each user has other items, or the same in another order, than the user of equal number there.

        Args:
            other: sequences of as many users.

        Returns:
            Shape (users,).
        """
        found: npt.NDArray[np.bool_] = np.diff(self.offsets) != np.diff(other.offsets)
        alike = np.flatnonzero(~found)
        own, theirs = self.select(alike), other.select(alike)
        found[np.repeat(alike, np.diff(own.offsets))[own.items != theirs.items]] = True
        return found

    @property
    def _a_target_each(self) -> bool:
        """Whether each user has one target of a split, the item at its place from the end."""
        return self.borders is None and self.left_out is None

    def _counts(self, split: Split) -> Longs:
        """How many targets each user has, where there are borders."""
        assert self.borders is not None
        start, stop = self._stretch(split)
        return np.minimum(stop - start, 1) if self.borders.first_only else stop - start

    def _stretch(self, split: Split) -> tuple[Longs, Longs]:
        assert self.borders is not None
        if split is Split.TEST:
            return self.borders.test_from, np.diff(self.offsets)
        return self.borders.validation_from, self.borders.test_from

    def _places(self, split: Split) -> Longs:
        """Where in `items` the targets of a split stand."""
        places = self._all_places(split)
        return places if self.left_out is None else places[~self.left_out[places]]

    def _all_places(self, split: Split) -> Longs:
        """The same with those that are left out."""
        if self.borders is None:
            return self.offsets[1:] - 1 - split.value
        counts = self._counts(split)
        firsts = self.offsets[:-1] + self._stretch(split)[0]
        return np.arange(counts.sum()) + np.repeat(firsts - _offsets(counts)[:-1], counts)

    def _known(self, n_items: int) -> Sequences:
        """The same rows without the items from `n_items` on."""
        known = self.items < n_items
        if known.all():
            return self
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(known)])
        return replace(self, items=self.items[known], offsets=before[self.offsets])

    def _up_to(self, lengths: Longs) -> Sequences:
        """The first items of each row, as many as named."""
        offsets = _offsets(lengths)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] - offsets[:-1], lengths)
        return Sequences(self.items[places], offsets, self.n_items)

    def _without_last(self, held_back: int) -> Sequences:
        lengths = np.maximum(np.diff(self.offsets) - held_back, 0)
        keep = np.ones(len(self.items), np.bool_)
        for back in range(1, held_back + 1):
            last = self.offsets[1:] - back
            keep[last[last >= self.offsets[:-1]]] = False
        return Sequences(self.items[keep], _offsets(lengths), self.n_items)


def from_lists(lists: list[IntArray], n_items: int) -> Sequences:
    """Join per-user arrays of item indices into `Sequences`."""
    items = np.concatenate(lists) if lists else np.zeros(0, np.int32)
    return Sequences(items.astype(np.int32), _offsets(np.array([len(items) for items in lists], np.int64)), n_items)


def _offsets(lengths: Longs) -> Longs:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
