"""New items: a share of the catalogue that no model may see an interaction with, held out to be measured.

Knows interactions and items as numbers; knows nothing of models, texts or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_LEFT = 3
"""Interactions that a user needs beside those with new items: one to train on, one to validate, one to test."""


@dataclass(frozen=True)
class HeldOut:
    """What holding out does to a log.

    Attributes:
        items: the items chosen, ascending, shape (C,).
        keep: mask of the interactions that stay, shape (interactions,).
        users: users who stay and whose last interaction is with a chosen item, ascending, shape (T,).
        targets: the item of that interaction, shape (T,).
    """

    items: npt.NDArray[np.int64]
    keep: npt.NDArray[np.bool_]
    users: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


def hold_out(users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], share: float, seed: int) -> HeldOut:
    """Choose new items at random, and take every interaction with them out of the log.

    Users with fewer than three interactions left go with them: they could not be split any more. With the same seed
    a larger share chooses the same items and more.

    Args:
        users: code of each interaction's user, shape (interactions,), each user's together and in order of time.
        items: code of each interaction's item, likewise.
        share: of the items that occur; one item at least is chosen.
        seed: of the choice.
    """
    present = np.unique(items).astype(np.int64)
    count = max(1, round(share * len(present)))
    chosen = np.sort(np.random.default_rng(seed).permutation(present)[:count])
    is_new = np.isin(items, chosen)
    left = np.bincount(users[~is_new], minlength=int(users.max(initial=-1)) + 1)
    stays = left[users] >= LEAST_LEFT
    is_last = np.append(users[1:] != users[:-1], True)[: len(users)]
    measured = is_last & is_new & stays
    return HeldOut(chosen, ~is_new & stays, users[measured].astype(np.int64), items[measured].astype(np.int64))
