"""Work on one batch after the other by several threads, with the results in the order of the batches.

Knows threads; knows nothing of what the work is. Helps where the work lets go of Python's lock, as Polars, PyArrow and
NumPy do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import polars as pl

_MOST = 8
"""Threads at most: each holds a batch in memory."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def threads() -> int:
    """How many threads work: as many as Polars has, within bounds."""
    return min(pl.thread_pool_size(), _MOST)


def in_turn(work: Callable[[Given], Made], batches: Iterable[Given]) -> Iterator[Made]:
    """What `work` makes of each batch, in their order; only a few batches are taken ahead of the result asked for.

    The batches are made by the thread that asks. Of several errors the one of the first batch is raised, whichever
    thread meets one first.
    """
    waiting: deque[Future[Made]] = deque()
    coming = iter(batches)
    with ThreadPoolExecutor(threads()) as pool:
        while True:
            try:
                batch = next(coming)
            except StopIteration:
                break
            except Exception:
                for above in waiting:
                    above.result()
                raise
            waiting.append(pool.submit(work, batch))
            if len(waiting) > threads():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
