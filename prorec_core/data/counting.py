"""Counts and look-ups of whole numbers, slice by slice, so that none needs a wider copy of the whole column.

Knows arrays of numbers; knows nothing of what they count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from prorec_core.data.in_turn import in_turn

_SLICE = 1 << 22

Codes = npt.NDArray[np.integer[Any]]
Number = TypeVar("Number", bound=np.generic)


def slices(size: int, least: int = 0) -> Iterator[slice]:
    """Ranges of some four million places, or of `least`, that make up `size` places."""
    step = max(_SLICE, least)
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def occurrences(codes: Codes, size: int) -> npt.NDArray[np.int64]:
    """How often each number from 0 to `size` - 1 occurs, shape (size,)."""
    counts = np.zeros(size, np.int64)
    # A slice shorter than the counts would cost more to add than to count.
    for part in in_turn(lambda part: np.bincount(codes[part], minlength=size), slices(len(codes), size)):
        counts += part
    return counts


def gathered(table: npt.NDArray[Number], codes: Codes, out: npt.NDArray[Number] | None = None) -> npt.NDArray[Number]:
    """`table[codes]`, perhaps written into `out`, which may be the memory of `codes`."""
    found = np.empty(len(codes), table.dtype) if out is None else out

    def look_up(part: slice) -> None:
        found[part] = table[codes[part]]

    for _ in in_turn(look_up, slices(len(codes))):
        pass
    return found
