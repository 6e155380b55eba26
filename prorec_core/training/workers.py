"""Processes that train one model together: each has all of it, and its part of every batch.

Knows how batches are cut, what travels between the processes, and whose random numbers are whose; knows nothing of who
started them or of what is trained. The loss of a batch is the sum of what the workers make of their parts, so that the
sum of their gradients is the whole batch's. All of them make the same batches, and draw from one stream what concerns a
whole batch, so that nobody has to be told what is in it.

Axes: B users, N rows of a table, D dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from prorec_core.training.batching import HistoryBatch

_NAME = 512
"""Bytes of the longest name that all are told."""
_LARGE = 2**16
"""Numbers from which a gradient travels where it stands: of a smaller one the copy costs less than another round."""


class WorkerLostError(RuntimeError):
    """Another worker is gone in the middle of what all of them do together."""


class Workers:
    """One process that trains alone; what several do together, a subclass does.

    Attributes:
        rank: which of the workers this is, from 0.
        count: how many there are.
        device: where this one computes, as in the experiment's `device`; None: as that says.
    """

    rank: int = 0
    count: int = 1
    device: str | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that keeps checkpoints and tells how far all are."""
        return self.rank == 0

    def seed(self, common: int, own: int) -> None:
        """Set torch's random numbers: those drawn for all alike, and this worker's own."""
        torch.manual_seed(common)

    @contextmanager
    def in_common(self) -> Iterator[None]:
        """Have all workers draw the same random numbers."""
        yield

    def own_rows(self, count: int) -> Tensor | None:
        """Of `count` rows of a batch, sorted by the work that each makes, this worker's, int64; None: all.

        At least one where there is one: who has none, of fewer rows than workers, stands in with the last one, which
        counts for nothing there.
        """
        return None

    def part(self, batch: HistoryBatch) -> tuple[HistoryBatch, Tensor | float]:
        """This worker's users of a training batch, and its share of the batch's targets."""
        return batch, 1.0

    def spread(self, function: Callable[[Tensor], Tensor], rows_N: Tensor) -> Tensor:
        """What a function makes of each row, each worker of some of them; all of it, at every worker.

        Its gradient is the sum of the workers'.
        """
        return function(rows_N)

    def sum_gradients(self, leaves: Sequence[Tensor]) -> None:
        """Give tensors, the same ones at all workers, the sum of their gradients; none where nobody has one."""

    def total(self, values: Sequence[Tensor | float], device: torch.device) -> list[float]:
        """The sums of the workers' numbers."""
        return [float(value) for value in values]

    def mine(self, count: int) -> npt.NDArray[np.int64] | None:
        """Of `count` pieces of work this worker's, ascending; None: all."""
        return None

    def put_together(self, found: npt.NDArray[Any], count: int, device: torch.device) -> npt.NDArray[Any]:
        """Whole numbers, one for each of `count` pieces of work, from what each worker found for its own."""
        return found

    def every(self, holds: bool, device: torch.device) -> bool:
        """Whether it holds at all workers."""
        return holds

    def told(self, name: str, device: torch.device) -> str:
        """The first worker's name for something, at all of them."""
        return name


ALONE = Workers()


@dataclass
class Traffic:
    """What one worker has exchanged with others: how often, the bytes that it handed over, the seconds it took.

    Seconds hold those in which it waited for others.
    """

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Group(Workers):
    """The workers of torch's process group, which is there already.

    Attributes:
        device: as in `Workers`.
        traffic: what this worker took part in since it began.
    """

    device: str | None = None
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._common: list[Tensor] | None = None

    def seed(self, common: int, own: int) -> None:
        torch.manual_seed(common)
        self._common = _random_state()
        torch.manual_seed(own)

    @contextmanager
    def in_common(self) -> Iterator[None]:
        if self._common is None:
            yield
            return
        own = _random_state()
        _set_random_state(self._common)
        try:
            yield
        finally:
            self._common = _random_state()
            _set_random_state(own)

    def own_rows(self, count: int) -> Tensor:
        return torch.arange(self.rank if self.rank < count else max(count - 1, 0), count, self.count)

    def part(self, batch: HistoryBatch) -> tuple[HistoryBatch, Tensor | float]:
        rows = self.own_rows(len(batch.lengths_B)).to(batch.lengths_B.device)
        assert batch.targets_BL is not None
        own = batch_of(batch, rows)
        if self.rank >= len(batch.lengths_B):
            return own, 0.0
        assert own.targets_BL is not None
        return own, (own.targets_BL >= 0).sum() / (batch.targets_BL >= 0).sum()

    def spread(self, function: Callable[[Tensor], Tensor], rows_N: Tensor) -> Tensor:
        # Pieces of one length, for that is what can be gathered at once; where the last ones have fewer rows the last
        # one stands there again.
        count = len(rows_N)
        piece = -(-count // self.count)
        own = rows_N[self.rank * piece : (self.rank + 1) * piece]
        if len(own) < piece:
            own = torch.cat([own, rows_N[-1:].expand(piece - len(own), *rows_N.shape[1:])])
        made: Tensor = _Gathered.apply(function(own), self, count)
        return made

    def sum_gradients(self, leaves: Sequence[Tensor]) -> None:
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        large = [leaf for leaf in wanted if leaf.numel() >= _LARGE and leaf.dtype == torch.float32]
        small = [leaf for leaf in wanted if leaf.numel() < _LARGE or leaf.dtype != torch.float32]
        ordered = [*large, *small]
        have = torch.tensor([float(leaf.grad is not None) for leaf in ordered], device=wanted[0].device)
        parts = [_gradient(leaf).flatten().float() for leaf in small]
        bucket = torch.cat([have, *parts])
        self.all_reduce(bucket)
        holders, place = bucket[: len(ordered)].tolist(), len(ordered)
        for leaf, has in zip(large, holders, strict=False):
            if has:
                leaf.grad = _gradient(leaf).contiguous()
                self.all_reduce(leaf.grad)
        for leaf, has in zip(small, holders[len(large) :], strict=True):
            summed = bucket[place : place + leaf.numel()].view(leaf.shape)
            place += leaf.numel()
            leaf.grad = summed.to(leaf.dtype) if has else None

    def total(self, values: Sequence[Tensor | float], device: torch.device) -> list[float]:
        numbers = torch.tensor([float(value) for value in values], dtype=torch.float64, device=device)
        self.all_reduce(numbers)
        return numbers.tolist()

    def mine(self, count: int) -> npt.NDArray[np.int64]:
        return np.arange(self.rank, count, self.count)

    def put_together(self, found: npt.NDArray[Any], count: int, device: torch.device) -> npt.NDArray[Any]:
        whole = torch.zeros(count, dtype=torch.int64)
        whole[torch.from_numpy(self.mine(count))] = torch.from_numpy(found.astype(np.int64))
        whole = whole.to(device)
        self.all_reduce(whole)
        return whole.cpu().numpy().astype(found.dtype)

    def every(self, holds: bool, device: torch.device) -> bool:
        return self.total([float(holds)], device)[0] == self.count

    def told(self, name: str, device: torch.device) -> str:
        content = name.encode() if self.first else b""
        assert len(content) <= _NAME
        letters = torch.zeros(_NAME, dtype=torch.int64)
        letters[: len(content)] = torch.tensor(list(content), dtype=torch.int64)
        letters = letters.to(device)
        self.all_reduce(letters)
        return bytes(letter for letter in letters.tolist() if letter).decode()

    def all_reduce(self, tensor: Tensor) -> None:
        """Have a tensor, in place, be the sum of all workers' tensors."""
        # Around a ring each hands over what is summed up to it, and then what all is: all but its own part twice.
        with self._exchange(2 * tensor.nbytes * (self.count - 1) // self.count):
            dist.all_reduce(tensor)

    def all_gather(self, piece: Tensor) -> Tensor:
        """All workers' pieces, which are of one shape, one after the other."""
        whole = piece.new_empty((self.count * len(piece), *piece.shape[1:]))
        with self._exchange(piece.nbytes * (self.count - 1)):
            dist.all_gather_single(whole, piece.contiguous())
        return whole

    def reduce_scatter(self, whole: Tensor) -> Tensor:
        """This worker's piece of the sum of all workers' tensors."""
        piece = whole.new_empty((len(whole) // self.count, *whole.shape[1:]))
        with self._exchange(piece.nbytes * (self.count - 1)):
            dist.reduce_scatter_single(piece, whole.contiguous())
        return piece

    @contextmanager
    def _exchange(self, handed_over: int) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            raise WorkerLostError(f"a worker is gone ({error})") from error
        self.traffic.calls += 1
        self.traffic.bytes += handed_over
        self.traffic.seconds += time.monotonic() - begun


class _Gathered(torch.autograd.Function):
    """Pieces of a table made whole; each worker's loss has its gradient of all of it, and a piece's is their sum."""

    @staticmethod
    def forward(ctx: Any, piece_ND: Tensor, group: Group, count: int) -> Tensor:
        ctx.group, ctx.beyond = group, group.count * len(piece_ND) - count
        return group.all_gather(piece_ND)[:count]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (whole_ND,) = upstream
        if ctx.beyond:
            whole_ND = torch.cat([whole_ND, whole_ND.new_zeros(ctx.beyond, *whole_ND.shape[1:])])
        return ctx.group.reduce_scatter(whole_ND), None, None


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def batch_of(batch: HistoryBatch, rows: Tensor) -> HistoryBatch:
    """Some users of a batch, by their rows, int64."""
    targets = None if batch.targets_BL is None else batch.targets_BL[rows]
    return replace(
        batch,
        users_B=batch.users_B[rows],
        items_BL=batch.items_BL[rows],
        lengths_B=batch.lengths_B[rows],
        targets_BL=targets,
    )


def _random_state() -> list[Tensor]:
    devices = torch.cuda.is_available() and torch.cuda.is_initialized()
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if devices else [])]


def _set_random_state(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1])
