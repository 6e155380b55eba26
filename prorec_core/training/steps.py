"""How a training's steps run: each operation by itself, captured once a shape and replayed, or with parts compiled.

Knows steps, shapes of batches and CUDA graphs; knows nothing of what a step computes. A step that is captured must wait
for nothing, may have no shape that the content of its batch decides, and takes what changes from step to step from
tensors that stay where they are: its batch, the rates, the generator of random numbers.

A captured step is a step like any other: the first of its shape runs as it is, the second is captured, which computes
nothing, and replayed, as are all that follow. So what is trained does not depend on which of them were replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from prorec_core.errors import UserError, causes
from prorec_core.training.trouble import is_full

Losses = Mapping[str, Tensor]
COMPILER = "inductor"
"""The backend of `torch.compile`."""


class Shaped(Protocol):
    """A batch that a captured step can be given."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of equal ones the tensors have equal shapes."""

    def kept(self) -> Self:
        """A copy that stays where it is."""

    def take(self, other: Self) -> None:
        """Take over what another of the same shape holds."""


Batch = TypeVar("Batch")
Step = Callable[[Batch], Losses]


class Capture(Protocol):
    """What records the work of a step and does it again."""

    def run(self, work: Callable[[], Losses]) -> Losses:
        """Do it once, as it is."""

    def record(self, work: Callable[[], Losses]) -> tuple[Callable[[], None], Losses]:
        """Record it without doing it; returns what does it, and the tensors in which its results then stand."""


class CudaGraphs:
    """CUDA graphs, all in one pool of memory: they run one after the other and leave nothing to each other."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, work: Callable[[], Losses]) -> Losses:
        # On the stream of the capture, so that what autograd keeps of a parameter belongs there.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            found = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return found

    def record(self, work: Callable[[], Losses]) -> tuple[Callable[[], None], Losses]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                found = work()
        except RuntimeError as error:
            ended_by = _of_capture(error)
            raise ended_by from (error if isinstance(ended_by, UserError) else None)
        return graph.replay, found


def _of_capture(error: RuntimeError) -> BaseException:
    """What ended a capture: the end of a capture that failed is an error of its own, and hides the first."""
    for cause in causes(error):
        if is_full(cause):
            return cause
    reason = str(error).strip().splitlines()[0]
    return UserError(f"a step cannot be captured ({reason})", place="steps", cure="Set steps=eager")


class Steps(Generic[Batch]):
    """Runs a step for batch after batch; what it returns holds until the next."""

    def __init__(self, step: Step[Batch], capture: Capture | None) -> None:
        self._step, self._capture = step, capture
        self._met: set[tuple[int, ...]] = set()
        self._recorded: dict[tuple[int, ...], tuple[Any, Callable[[], None], Losses]] = {}

    def __call__(self, batch: Batch) -> Losses:
        if self._capture is None:
            return self._step(batch)
        shaped: Any = batch
        if shaped.shape not in self._met:
            self._met.add(shaped.shape)
            return self._capture.run(lambda: self._step(batch))
        if shaped.shape not in self._recorded:
            kept = shaped.kept()
            self._recorded[shaped.shape] = (kept, *self._capture.record(lambda: self._step(kept)))
        kept, replay, found = self._recorded[shaped.shape]
        kept.take(shaped)
        replay()
        return found

    def forget(self) -> None:
        """Something that recorded steps read has moved: record them anew."""
        self._recorded.clear()


def compile_regions(model: nn.Module) -> None:
    """Have those modules that say `compiled = True` compiled for training, whatever the shapes that they are given.

    Of a model that is built of equal blocks one is compiled for all. In evaluation they run as they are: searches have
    ever other shapes.
    """
    for module in model.modules():
        if getattr(module, "compiled", False):
            module.forward = _in_training(module, module.forward)


def _in_training(module: nn.Module, plain: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(plain, fullgraph=True, dynamic=True, backend=COMPILER)

    def forward(*args: Any) -> Any:
        return compiled(*args) if module.training else plain(*args)

    return forward
