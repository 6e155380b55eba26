"""Which interactions are kept, counted filter by filter. Knows users, items and times as numbers; no files, no text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.errors import UserError

BoolArray = npt.NDArray[np.bool_]


class Funnel:
    """Interactions on their way through the filters, and what each filter took.

    `frame` holds one row an interaction, in the order of the file: user and item (integer codes), timestamp (int64).
    Where nothing is left, the first of `remarks` on the data is told too: it may say why.
    """

    def __init__(self, frame: pl.DataFrame, place: str, remarks: Sequence[str] = ()) -> None:
        self.frame = frame
        self.steps: list[dict[str, Any]] = []
        self._place = place
        self._remarks = remarks
        self._check_left()

    def apply(self, name: str, keep: pl.Series | BoolArray | pl.DataFrame, setting: str = "") -> None:
        """Keep the rows of a mask, or replace the frame by what is left of it, and note the counts.

        Raises:
            UserError: nothing is left; says which filter took what.
        """
        before = counts(self.frame)
        self.frame = keep if isinstance(keep, pl.DataFrame) else self.frame.filter(pl.Series(keep))
        self.steps.append({"filter": name, "setting": setting, "before": before, "after": counts(self.frame)})
        self._check_left()

    def _check_left(self) -> None:
        if not self.frame.is_empty():
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


def counts(frame: pl.DataFrame) -> dict[str, int]:
    """How many users, items and interactions a frame holds."""
    return {
        "users": frame["user"].n_unique(),
        "items": frame["item"].n_unique(),
        "interactions": frame.height,
    }


def k_core(
    users: npt.NDArray[np.integer[Any]], items: npt.NDArray[np.integer[Any]], min_user: int, min_item: int
) -> BoolArray:
    """The largest set of interactions in which every user has `min_user` and every item `min_item` of them.

    Args:
        users: code of each interaction's user, shape (interactions,), from 0.
        items: code of each interaction's item, likewise.

    Returns:
        Mask of the interactions kept, shape (interactions,). Filters users and items in turn until nothing changes;
        the result does not depend on the order of the rows.
    """
    rows = np.arange(len(users))
    while True:
        size = len(rows)
        for codes, least in ((users, min_user), (items, min_item)):
            kept = codes[rows]
            rows = rows[np.bincount(kept)[kept] >= least] if len(rows) else rows
        if len(rows) == size:
            mask = np.zeros(len(users), dtype=np.bool_)
            mask[rows] = True
            return mask


def without_duplicates(frame: pl.DataFrame, policy: str) -> pl.DataFrame:
    """Drop repeated rows: `exact` those equal in user, item and time; `first` all but a user's first of an item."""
    if policy == "exact":
        return frame.unique(["user", "item", "timestamp"], keep="first", maintain_order=True)
    if policy == "first":
        earliest = frame.with_row_index("row").sort("timestamp", maintain_order=True)
        return earliest.unique(["user", "item"], keep="first", maintain_order=True).sort("row").drop("row")
    return frame


def in_order_of_time(frame: pl.DataFrame, ties: str, seed: int) -> pl.DataFrame:
    """Sort by user and time; rows of a user at one time stay as in the file (`input`) or are shuffled by the seed."""
    if ties == "shuffle":
        frame = frame[np.random.default_rng(seed).permutation(frame.height)]
    return frame.sort("user", "timestamp", maintain_order=True)
