"""A start that is mostly imports, without looking through them for what is not needed.

Knows Python's collector of garbage; knows nothing of what is imported.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_for_good() -> Iterator[None]:
    """Collect no garbage in the context, and never look through what was made in it: it takes a seventh of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
