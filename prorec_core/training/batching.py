"""Histories as padded batches of similar length under a token budget. Knows sequences; knows nothing of models.

Axes: B users of a batch, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prorec_core.data.sequences import Sequences


@dataclass(frozen=True)
class HistoryBatch:
    """Histories of some users, each at the left of its row.

    A causal model needs no mask: what stands after a history's end cannot be seen from within it.

    Attributes:
        users_B: row of each history in the sequences that it came from, int64.
        items_BL: item indices, 0 past a history's end, int64.
        lengths_B: items in each history, int64.
        targets_BL: for training, the item after each position, -1 where there is none, int64; else None.
    """

    users_B: Tensor
    items_BL: Tensor
    lengths_B: Tensor
    targets_BL: Tensor | None = None

    @property
    def is_item_BL(self) -> Tensor:
        """True where a row holds an item of its history, bool."""
        return torch.arange(self.items_BL.shape[1], device=self.items_BL.device) < self.lengths_B[:, None]

    def last(self, values_BLX: Tensor) -> Tensor:
        """The values at each history's last position, shape (B, X); an empty history's are those at position 0."""
        rows = torch.arange(len(self.lengths_B), device=values_BLX.device)
        return values_BLX[rows, (self.lengths_B - 1).clamp(min=0)]


def training_batches(
    sequences: Sequences, max_history: int, tokens_per_batch: int, seed: int, device: torch.device
) -> list[HistoryBatch]:
    """All sequences of two items or more as next-item batches, in an order that `seed` decides.

    Every position of a history has its target, so one pass over a history trains on all its prefixes.
    """
    lengths = np.minimum(np.diff(sequences.offsets) - 1, max_history)
    users = np.flatnonzero(lengths >= 1)
    random = np.random.default_rng(seed)
    order = users[np.lexsort((random.random(len(users)), lengths[users]))]
    groups = _under_budget(order, lengths[order], tokens_per_batch)
    return [
        _padded(sequences, groups[index], max_history, device, with_targets=True)
        for index in random.permutation(len(groups))
    ]


def inference_batches(
    histories: Sequences, max_history: int, tokens_per_batch: int, max_users: int, device: torch.device
) -> list[HistoryBatch]:
    """All histories, shortest first; an empty one has length 0 and stands as item 0, for want of anything better."""
    lengths = np.minimum(np.diff(histories.offsets), max_history)
    order = np.argsort(lengths, kind="stable")
    groups = _under_budget(order, np.maximum(lengths[order], 1), tokens_per_batch, max_users)
    return [_padded(histories, group, max_history, device, with_targets=False) for group in groups]


def _under_budget(
    users: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], tokens: int, max_users: int | None = None
) -> list[npt.NDArray[np.int64]]:
    """Cut users, sorted by length, into groups whose padded size stays under the budget."""
    groups, start = [], 0
    while start < len(users):
        # A user has a token at least, so that no group reaches further than this.
        last = min(len(users), start + max(1, min(tokens, max_users or tokens)))
        sizes = np.arange(1, last - start + 1) * lengths[start:last]
        # The padded size rises with every user, as lengths do; a user who alone is over the budget has a group too.
        end = start + max(1, int(np.searchsorted(sizes, tokens, side="right")))
        groups.append(users[start:end])
        start = end
    return groups


def _padded(
    sequences: Sequences,
    users: npt.NDArray[np.int64],
    max_history: int,
    device: torch.device,
    *,
    with_targets: bool,
) -> HistoryBatch:
    extra = 1 if with_targets else 0
    ends = sequences.offsets[users + 1]
    lengths = np.minimum(ends - sequences.offsets[users] - extra, max_history)
    width = max(int(lengths.max(initial=0)), 1)
    columns = np.arange(width)
    inside = columns < lengths[:, None]
    places = np.where(inside, (ends - extra - lengths)[:, None] + columns, 0)
    if not len(sequences.items):
        places, flat = np.zeros_like(places), np.zeros(2, np.int32)
    else:
        flat = sequences.items

    def tensor(values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(device)

    return HistoryBatch(
        users_B=tensor(users),
        items_BL=tensor(np.where(inside, flat[places], 0)),
        lengths_B=tensor(lengths),
        targets_BL=tensor(np.where(inside, flat[np.where(inside, places + 1, 0)], -1)) if with_targets else None,
    )
