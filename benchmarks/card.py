"""A device as a benchmark sees it: its clock, its memory, and what it could do at most; and what was measured on it.

Knows devices, seconds and operations; knows nothing of what is run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.budget import Point, does_not_fit
from prorec_core.errors import UserError, one_line
from prorec_core.training.trouble import DeviceLostError, of_device

T = TypeVar("T")

PEAKS = (
    ("B200", 2250.0),
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L4", 121.0),
)
"""Dense bfloat16 products, 10¹² operations a second, by what a card's name holds, as its maker's data sheet says; the
first that fits counts."""


def known_peak(name: str) -> float | None:
    """The card's peak, 10¹² operations a second; None where the table has none."""
    return next((peak for part, peak in PEAKS if part in name), None)


@dataclass
class Figure:
    """What was measured.

    Attributes:
        title: of the work.
        value: in `unit`; None where it was not measured.
        unit: s, users/s, × or %.
        target: as it stands in the table; empty where there is none.
        gib: the most that tensors took on the device; None where it was none.
        note: what was extrapolated from what, or how it is to be read.
        why_not: why there is no value.
    """

    title: str
    value: float | None = None
    unit: str = "s"
    target: str = ""
    gib: float | None = None
    note: str = ""
    why_not: str = ""


@dataclass
class Card:
    """A device and its clock.

    Attributes:
        device: where models run.
        peak_tflops: dense bfloat16; None: not known.
    """

    device: torch.device
    peak_tflops: float | None = None

    @property
    def name(self) -> str:
        """As its maker calls it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    @property
    def low_precision(self) -> bool:
        """Whether products are made in bfloat16."""
        from prorec_core.training.runtime import has_bfloat16

        return has_bfloat16(self.device)

    def wait(self) -> None:
        """Wait until it has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, work: Callable[[], T]) -> tuple[float, T]:
        """Seconds of the clock that work takes, and what it gives."""
        self.wait()
        started = time.perf_counter()
        found = work()
        self.wait()
        return time.perf_counter() - started, found

    def median(self, work: Callable[[], object], laps: int, warm: int = 1) -> float:
        """The median of some laps, in seconds, after some that do not count."""
        for _ in range(warm):
            work()
        return statistics.median(self.timed(work)[0] for _ in range(laps))

    def gib(self) -> float | None:
        """The most that tensors took since the last time that this was asked."""
        if self.device.type != "cuda":
            return None
        found = torch.cuda.max_memory_allocated(self.device) / 2**30
        torch.cuda.reset_peak_memory_stats(self.device)
        return found

    def utilisation(self, operations: float, seconds: float) -> float | None:
        """Percent of the peak; None where that is not known."""
        return None if self.peak_tflops is None else 100 * operations / seconds / (self.peak_tflops * 1e12)


def operations_of(work: Callable[[], object]) -> int:
    """Operations of the products that work makes, forward and backward, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@dataclass
class Session:
    """Work after work within a budget of seconds; what would not fit is told and not begun.

    Attributes:
        card: where.
        ends: when the budget is over, by `time.monotonic`.
        folder: for what stages leave.
        figures: so far.
        tell: is told each line.
    """

    card: Card
    ends: float
    folder: Path
    tell: Callable[[Figure], None]
    figures: list[Figure] = field(default_factory=list)
    lost: str = ""

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def run(self, title: str, expected: float, work: Callable[[], list[Figure]], target: str = "") -> bool:
        """Do a piece of work if it fits; whether it was done.

        Args:
            title: of its first figure.
            expected: seconds that it takes on the slowest card that one would measure.
            work: gives its figures.
            target: of the first.
        """
        why = self.lost or does_not_fit([Point(1, expected)], 1, self.left)
        if not why:
            self.card.gib()
            try:
                found = work()
            except Exception as error:
                trouble = of_device(error) or (error if isinstance(error, UserError) else None)
                if trouble is None:
                    raise
                why = one_line(trouble)
                if isinstance(trouble, DeviceLostError):
                    self.lost = "the device was lost before"
            else:
                found[0].target = found[0].target or target
                found[0].gib = found[0].gib or self.card.gib()
                self.keep(found)
                return True
        self.keep([Figure(title, target=target, why_not=why)])
        return False

    def keep(self, figures: list[Figure]) -> None:
        """Take figures in, and tell them."""
        self.figures += figures
        for figure in figures:
            self.tell(figure)
