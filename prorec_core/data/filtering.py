"""Which interactions are kept, counted filter by filter. Knows users, items and times as numbers; no files, no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.data.counting import Codes, gathered, occurrences
from prorec_core.errors import UserError

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Count:
    """Interactions counted.

    Attributes:
        users: how many users have some.
        of_items: how many are with each item, int64, shape (items,).
    """

    users: int
    of_items: npt.NDArray[np.int64]

    @classmethod
    def of(cls, users: Codes, items: Codes, n_items: int) -> Count:
        """Of interactions with users and items by their codes from 0, shape (interactions,)."""
        users_there = occurrences(users, int(users.max(initial=-1)) + 1)
        return cls(int(np.count_nonzero(users_there)), occurrences(items, n_items))

    def __add__(self, other: Count) -> Count:
        """Of both, which have no user in common."""
        return Count(self.users + other.users, self.of_items + other.of_items)

    @property
    def interactions(self) -> int:
        """How many there are."""
        return int(self.of_items.sum())

    def told(self) -> dict[str, int]:
        """How many users, items and interactions there are."""
        return {
            "users": self.users,
            "items": int(np.count_nonzero(self.of_items)),
            "interactions": self.interactions,
        }


@dataclass(frozen=True)
class Few:
    """Counts of those items alone that have any: what is told of a part does not grow with the catalogue.

    Attributes:
        items: which, int64.
        counts: of each, int64.
    """

    items: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, counts_N: npt.NDArray[np.int64]) -> Few:
        """Of the counts of all items."""
        items = np.flatnonzero(counts_N)
        return cls(items, counts_N[items])

    def add_to(self, total_N: npt.NDArray[np.int64]) -> None:
        """Add them to the counts of all items, in place."""
        total_N[self.items] += self.counts


class Funnel:
    """What each filter took of the interactions.

    Where nothing is left, the first of `remarks` on the data is told too: it may say why.
    """

    def __init__(self, count: Count, place: str, remarks: Sequence[str] = ()) -> None:
        self.steps: list[dict[str, Any]] = []
        self.count = count
        self._place = place
        self._remarks = remarks
        self._check_left()

    def note(self, name: str, count: Count, setting: str = "") -> None:
        """Note what a filter left.

        Raises:
            UserError: nothing is left; says which filter took what.
        """
        self.steps.append({"filter": name, "setting": setting, "before": self.count.told(), "after": count.told()})
        self.count = count
        self._check_left()

    def _check_left(self) -> None:
        if self.count.interactions:
            return
        if not self.steps:
            raise UserError("the file holds no interactions", place=self._place, cure="Check that it is complete")
        taken = [
            (step["before"]["interactions"] - step["after"]["interactions"], step["filter"], step["setting"])
            for step in self.steps
        ]
        told = ", ".join(f"{name} took {rows:,}" for rows, name, _ in taken if rows)
        total = self.steps[0]["before"]["interactions"]
        much = [setting for rows, _, setting in taken if 3 * rows >= total] or [max(taken)[2]]
        remark = f". {self._remarks[0]}" if self._remarks else ""
        raise UserError(
            f"nothing is left of {total:,} interactions: {told}{remark}",
            place=self._place,
            cure=f"Check {' and '.join(dict.fromkeys(much))}",
        )


def k_core(users: Codes, items: Codes, min_user: int, min_item: int) -> BoolArray:
    """The largest set of interactions in which every user has `min_user` and every item `min_item` of them.

    Args:
        users: code of each interaction's user, shape (interactions,), from 0.
        items: code of each interaction's item, likewise.

    Returns:
        Mask of the interactions kept, shape (interactions,). Filters users and items in turn until nothing changes;
        the result does not depend on the order of the rows.
    """
    kept = np.ones(len(users), np.bool_)
    left = [users, items]
    sizes = [int(codes.max(initial=-1)) + 1 for codes in left]
    changed = True
    while changed:
        changed = False
        for side, least in ((0, min_user), (1, min_item)):
            times = occurrences(left[side], sizes[side])
            if not ((times > 0) & (times < least)).any():
                continue
            enough = gathered(times >= least, left[side])
            kept[kept] = enough
            left = [codes[enough] for codes in left]
            changed = True
    return kept


def core_rows(users: Codes, items: Codes, least: int, enough: BoolArray) -> BoolArray:
    """Which interactions stay, of some users with all of theirs, where items are known that have enough.

    Args:
        users: code of each interaction's user, shape (interactions,), from 0.
        items: code of each interaction's item, likewise.
        least: interactions of a user.
        enough: of each item, whether its interactions stay, shape (items,).

    The k-core is found without having all interactions in one place: count those that stay, part by part of the users;
    the items that have enough of these are the next `enough`, until they are the same.
    """
    kept = gathered(enough, items)
    times = occurrences(users[kept], int(users.max(initial=-1)) + 1)
    kept &= gathered(times >= least, users)
    return kept
