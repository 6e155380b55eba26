"""A run in this process as the command line does it: with a display, then the result. Knows nothing of what is run."""

from __future__ import annotations

import os
import sys

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""glibc gives big tensors back to the kernel at every step unless these are set before a process starts."""


def debugging() -> bool:
    """Whether tracebacks and all logs are to be shown."""
    return "--debug" in sys.argv[1:]


def keep_memory() -> None:
    """Start this program again, once, with an allocator that keeps its memory (glibc only)."""
    try:
        glibc = bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError, AttributeError):
        glibc = False
    if glibc and not any(name in os.environ for name in ALLOCATOR):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ALLOCATOR})
