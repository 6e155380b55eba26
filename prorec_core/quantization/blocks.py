"""Large tables dealt with piece by piece, on all cores. Knows rows; knows nothing of codes or clusters.

Pieces do not depend on how many cores there are, and each is computed by one thread: so neither do the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from threadpoolctl import threadpool_info, threadpool_limits

LARGE_TABLE = 50_000
"""Items above which codebooks are fitted to a sample and work is shared among the cores. With fewer,
all items are fitted to, by one thread, and the codes stay equal to the bit from version to version."""
BLOCK = 65_536
"""Rows of which there is a second copy, or one in float64, at a time. Smaller tables are one piece."""

Result = TypeVar("Result")


class Share(Protocol):
    """Does work for pieces of a table, each on a core."""

    def __call__(self, work: Callable[[slice], Result], rows: int, size: int) -> list[Result]:
        """The results for the pieces of at most `size` of `rows` rows, in their order."""
        ...


def pieces(rows: int, size: int = BLOCK) -> Iterator[slice]:
    """Pieces of at most `size` rows that cover `rows` rows in their order; none of no rows."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


@contextmanager
def all_cores() -> Iterator[Share]:
    """Gives what shares work among as many threads as a product of matrices would take; within, that takes one."""
    threads = max([library["num_threads"] for library in threadpool_info()], default=1)
    with threadpool_limits(limits=1), ThreadPoolExecutor(threads) as pool:

        def share(work: Callable[[slice], Result], rows: int, size: int) -> list[Result]:
            return list(pool.map(work, pieces(rows, size)))

        yield share
