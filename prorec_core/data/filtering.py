"""Which interactions are kept, counted filter by filter. Knows users, items and times as numbers; no files, no text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.counting import Codes, gathered, occurrences
from prorec_core.errors import UserError

BoolArray = npt.NDArray[np.bool_]


class Funnel:
    """Interactions on their way through the filters, and what each filter took.

    `frame` holds one row an interaction: user and item (integer codes from 0), timestamp (int64). It may be put in
    another order.
    Where nothing is left, the first of `remarks` on the data is told too: it may say why.
    """

    def __init__(self, frame: pl.DataFrame, place: str, remarks: Sequence[str] = ()) -> None:
        self.frame = frame
        self.steps: list[dict[str, Any]] = []
        self._place = place
        self._remarks = remarks
        self._counts = counts(frame)
        self._check_left()

    def apply(self, name: str, keep: pl.Series | BoolArray, setting: str = "") -> None:
        """Keep the rows of a mask, and note the counts.

        Raises:
            UserError: nothing is left; says which filter took what.
        """
        before = self._counts
        keep = pl.Series(keep)
        if not keep.all():
            self.frame = self.frame.filter(keep)
            self._counts = counts(self.frame)
        self.steps.append({"filter": name, "setting": setting, "before": before, "after": self._counts})
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
        "users": _different(frame["user"].to_numpy()),
        "items": _different(frame["item"].to_numpy()),
        "interactions": frame.height,
    }


def _different(codes: Codes) -> int:
    return int(np.count_nonzero(occurrences(codes, int(codes.max(initial=-1)) + 1)))


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
