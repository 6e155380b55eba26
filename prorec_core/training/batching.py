"""Histories as padded batches of similar length under a token budget. Knows sequences; knows nothing of models.

The same histories come in the same batches on every device. Where steps are to have fixed shapes, each batch is padded
further, to one of a few sizes, and says so: whoever trains on it then masks where it would else pick out, so that the
host need not wait for the device to learn how much there is. Axes: B users of a batch, L positions, P targets, X any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
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
        fixed: whether it is padded to one of a few sizes, so that nothing made of it may have a shape that its content
            decides. Rows without a user have length 0.
    """

    users_B: Tensor
    items_BL: Tensor
    lengths_B: Tensor
    targets_BL: Tensor | None = None
    fixed: bool = False

    @property
    def is_item_BL(self) -> Tensor:
        """True where a row holds an item of its history, bool."""
        return torch.arange(self.items_BL.shape[1], device=self.items_BL.device) < self.lengths_B[:, None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Users and positions: all that the shapes of a step depend on where they are fixed."""
        return tuple(self.items_BL.shape)

    def kept(self) -> HistoryBatch:
        """A copy that stays where it is."""
        return self._each(lambda _, value: value.clone())

    def take(self, other: HistoryBatch) -> None:
        """Take over what another batch of the same shape holds."""
        self._each(lambda name, value: value.copy_(getattr(other, name)))

    def _each(self, change: Callable[[str, Tensor], Tensor]) -> HistoryBatch:
        """The batch with other tensors, each from its name and what it was."""
        users_B, items_BL, lengths_B = (
            change(name, getattr(self, name)) for name in ("users_B", "items_BL", "lengths_B")
        )
        targets_BL = None if self.targets_BL is None else change("targets_BL", self.targets_BL)
        return HistoryBatch(users_B, items_BL, lengths_B, targets_BL, self.fixed)

    def last(self, values_BLX: Tensor) -> Tensor:
        """The values at each history's last position, shape (B, X); an empty history's are those at position 0."""
        rows = torch.arange(len(self.lengths_B), device=values_BLX.device)
        return values_BLX[rows, (self.lengths_B - 1).clamp(min=0)]

    def targets(self) -> Targets:
        """Every position that has a next item; in a batch of fixed shape every position."""
        assert self.targets_BL is not None
        if not self.fixed:
            rows, columns = (self.targets_BL >= 0).nonzero(as_tuple=True)
            return Targets(rows, columns, self.targets_BL[rows, columns])
        users, length = self.targets_BL.shape
        places = torch.arange(users * length, device=self.targets_BL.device)
        items_P = self.targets_BL.flatten()
        return Targets(places // length, places % length, items_P.clamp(min=0), items_P >= 0)


@dataclass(frozen=True)
class Targets:
    """Where in a batch items are predicted: after position `columns_P` of row `rows_P` comes `items_P`, int64.

    Attributes:
        real_P: which of them are any, bool; what stands at the others counts for nothing. None: all are.
    """

    rows_P: Tensor
    columns_P: Tensor
    items_P: Tensor
    real_P: Tensor | None = None

    @property
    def count(self) -> Tensor | int:
        """How many there are, at least 1; on the device where only that knows."""
        return max(len(self.items_P), 1) if self.real_P is None else self.real_P.sum().clamp(min=1)

    def of(self, values_BLX: Tensor) -> Tensor:
        """The values at the targets' positions, shape (P, X)."""
        return values_BLX[self.rows_P, self.columns_P]

    def labels(self, codes_P: Tensor) -> Tensor:
        """What is to be learnt there, as PyTorch's cross-entropy is told it: -100 where no target is."""
        return codes_P if self.real_P is None else codes_P.masked_fill(~self.real_P, NO_TARGET)

    def select(self, places: Tensor) -> Targets:
        """Some of them, in the order named, int64."""
        real = None if self.real_P is None else self.real_P[places]
        return Targets(self.rows_P[places], self.columns_P[places], self.items_P[places], real)


NO_TARGET = -100
"""What PyTorch's cross-entropy passes over."""


def training_batches(
    sequences: Sequences,
    max_history: int,
    tokens_per_batch: int,
    seed: int,
    device: torch.device,
    *,
    fixed: bool = False,
) -> list[HistoryBatch]:
    """All sequences of two items or more as next-item batches, in an order that `seed` decides.

    Every position of a history has its target, so one pass over a history trains on all its prefixes.

    Args:
        sequences: users' items.
        max_history: items of a history at most, the latest.
        tokens_per_batch: items of a batch at most, before it is padded to a fixed shape.
        seed: of the order.
        device: where the batches lie; they move there in one go.
        fixed: pad each to one of a few sizes.
    """
    lengths = np.minimum(np.diff(sequences.offsets) - 1, max_history)
    users = np.flatnonzero(lengths >= 1)
    random = np.random.default_rng(seed)
    order = users[np.lexsort((random.random(len(users)), lengths[users]))]
    groups = _under_budget(order, lengths[order], tokens_per_batch)
    batches = [
        _padded(sequences, groups[index], max_history, with_targets=True) for index in random.permutation(len(groups))
    ]
    if fixed:
        batches = [_of_fixed_shape(batch, max_history, tokens_per_batch) for batch in batches]
    return _moved(batches, device)


def at_a_time(amount: int, device: torch.device) -> int:
    """How much to do at a time where a CPU does so much: a card has the memory for more, and is idle with less."""
    return 16 * amount if device.type == "cuda" else amount


def inference_batches(
    histories: Sequences, max_history: int, tokens_per_batch: int, max_users: int, device: torch.device
) -> list[HistoryBatch]:
    """All histories, shortest first; an empty one has length 0 and stands as item 0, for want of anything better."""
    lengths = np.minimum(np.diff(histories.offsets), max_history)
    order = np.argsort(lengths, kind="stable")
    groups = _under_budget(order, np.maximum(lengths[order], 1), tokens_per_batch, max_users)
    return _moved([_padded(histories, group, max_history, with_targets=False) for group in groups], device)


def fixed_width(length: int, max_history: int) -> int:
    """The width to which histories of up to `length` items are padded: of each doubling four, and the longest."""
    step = max(1, (1 << (length - 1).bit_length()) // 8)
    return min(-(-length // step) * step, max_history)


def _of_fixed_shape(batch: HistoryBatch, max_history: int, tokens: int) -> HistoryBatch:
    """The same batch in the shape that all batches have whose longest history falls to the same width."""
    users, length = batch.items_BL.shape
    width = fixed_width(length, max_history)
    shortest = next(each for each in range(length, 0, -1) if each == 1 or fixed_width(each - 1, max_history) < width)
    rows, columns = max(1, tokens // shortest) - users, width - length
    assert batch.targets_BL is not None
    return HistoryBatch(
        F.pad(batch.users_B, (0, rows)),
        F.pad(batch.items_BL, (0, columns, 0, rows)),
        F.pad(batch.lengths_B, (0, rows)),
        F.pad(batch.targets_BL, (0, columns, 0, rows), value=-1),
        fixed=True,
    )


def _moved(batches: list[HistoryBatch], device: torch.device) -> list[HistoryBatch]:
    """The batches on a device, in one copy: one a tensor would have the host wait for each."""
    if device.type == "cpu":
        return batches
    every = [value for batch in batches for value in vars(batch).values() if isinstance(value, Tensor)]
    if not every:
        return batches
    flat = torch.cat([value.flatten() for value in every])
    if device.type == "cuda":
        flat = flat.pin_memory()
    there = iter(flat.to(device, non_blocking=True).split([value.numel() for value in every]))
    # In the order in which they were taken: that of the fields.
    return [batch._each(lambda _, value: next(there).view(value.shape)) for batch in batches]


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
        return torch.from_numpy(values.astype(np.int64))

    return HistoryBatch(
        users_B=tensor(users),
        items_BL=tensor(np.where(inside, flat[places], 0)),
        lengths_B=tensor(lengths),
        targets_BL=tensor(np.where(inside, flat[np.where(inside, places + 1, 0)], -1)) if with_targets else None,
    )
