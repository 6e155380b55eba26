"""What captures steps on a CPU, so that tests can tell what a CUDA graph would refuse or get wrong.

`Tape` records the operations of a step and does them again on the same tensors, as a graph does: what a step reads of
the host is frozen. `Rerun` calls the step again. Both refuse, while a step runs, what would wait for a device, or what
a graph cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prorec_core.training.steps import Losses

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
}
"""What needs a number from the device: how much there is, or which it is."""


class WaitError(Exception):
    """A step would wait for the device."""


def waits(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether an operation would have the host wait for a GPU, or could not be captured."""
    if func.overloadpacket in WAITS or func is aten.repeat_interleave.Tensor:
        return True
    if func is aten.lift_fresh.default:
        return True  # a tensor of numbers of the host
    if func.overloadpacket in {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}:
        return any(isinstance(each, Tensor) and each.dtype in {torch.bool, torch.uint8} for each in args[1])
    return False


class Watched(TorchDispatchMode):
    """Refuses what waits."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if waits(func, args):
            raise WaitError(str(func))
        return func(*args, **(kwargs or {}))


class _Recording(Watched):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_dispatch__(func, types, args, kwargs)
        self.done.append((func, args, kwargs or {}, found))
        return found


class Rerun:
    """Captures nothing: the step is called each time."""

    def run(self, work: Callable[[], Losses]) -> Losses:
        with Watched():
            return work()

    def record(self, work: Callable[[], Losses]) -> tuple[Callable[[], None], Losses]:
        found: dict[str, Tensor] = {}

        def replay() -> None:
            found.update(self.run(work))

        return replay, found


class Tape(Rerun):
    """Does the recorded operations again, on the tensors of then."""

    def __init__(self) -> None:
        self.replayed = 0

    def record(self, work: Callable[[], Losses]) -> tuple[Callable[[], None], Losses]:
        recording = _Recording()
        with recording:
            found = work()
        fresh = [True]

        @torch.no_grad()
        def replay() -> None:
            if fresh:
                fresh.clear()  # recording it did it
                return
            self.replayed += 1
            for func, args, kwargs, then in recording.done:
                now = func(*args, **kwargs)
                for old, new in zip(tree_leaves(then), tree_leaves(now), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)

        return replay, found
