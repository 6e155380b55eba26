"""What the next piece of work will cost, from the smaller ones before. Knows sizes and costs; knows no work.

Seconds grow with some power of the size: the last two measurements say with which, and the last one from where. The
power is taken to be at least 1, since what a small size costs anyway hides how fast the rest grows, and at most 2.
Memory begins with what libraries take, and grows on a line through the last two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LEAST, _MOST = 1.0, 2.0


@dataclass(frozen=True)
class Point:
    """A measurement: the size of what was worked on, in any unit, and what it cost."""

    size: float
    cost: float


def seconds_of(before: Sequence[Point], size: float) -> float | None:
    """What a larger size will take; None where nothing was measured.

    Args:
        before: in order of size.
        size: of what comes next.
    """
    if not before:
        return None
    last = before[-1]
    power = _LEAST
    if len(before) > 1 and before[-2].size < last.size and min(before[-2].cost, last.cost) > 0:
        power = math.log(last.cost / before[-2].cost) / math.log(last.size / before[-2].size)
    return float(last.cost * (size / last.size) ** min(max(power, _LEAST), _MOST))


def memory_of(before: Sequence[Point], size: float) -> float | None:
    """The same of memory; None where fewer than two sizes were measured."""
    if len(before) < 2 or before[-2].size == before[-1].size:
        return None
    first, last = before[-2:]
    return last.cost + max(0.0, last.cost - first.cost) / (last.size - first.size) * (size - last.size)


def does_not_fit(before: Sequence[Point], size: float, left: float) -> str:
    """Why work of a size is not begun with so many seconds left; empty where it may be."""
    expected = seconds_of(before, size)
    if left <= 0:
        return "would not fit the budget, which is used up"
    if expected is not None and expected > left:
        return f"would not fit the budget: about {expected:,.0f} s, and {left:,.0f} s are left"
    return ""
