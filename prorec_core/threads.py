"""How the threads of a process that trains wait for each other, and on which cores they run.

Knows environment variables and cores; knows no libraries.

The number of threads moves numbers: products of matrices in float32 and bfloat16 and the gradients of a layer norm are
summed in as many parts as there are threads. So a process that shares the machine keeps as many threads as one that has
it alone, and runs them on fewer cores.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

WAITING: Mapping[str, str] = {
    # Threads that wait for each other spin, but briefly: to sleep at once costs an idle machine a third of its
    # speed, to spin for long a busy one several times as much. Other OpenMPs than GNU's read the policy alone.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "2000",
}
"""What is set before torch is loaded."""

SHARING: Mapping[str, str] = {**WAITING, "GOMP_SPINCOUNT": "0"}
"""The same where threads have fewer cores than there are threads: the one that is waited for needs the core."""


def wait_briefly() -> None:
    """Set it for this process, where torch is not loaded yet and nobody has set anything else."""
    if "torch" not in sys.modules:
        for name, value in WAITING.items():
            os.environ.setdefault(name, value)


def cores() -> list[int]:
    """The cores that this process may use; empty where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def shares(count: int) -> list[list[int]]:
    """This process's cores cut into as many shares, one at least in each; where there are more shares, some meet."""
    own = cores()
    if not own:
        return [[] for _ in range(count)]
    return [
        own[len(own) * number // count : len(own) * (number + 1) // count] or [own[number % len(own)]]
        for number in range(count)
    ]


def run_on(chosen: Collection[int]) -> None:
    """Have all threads of this process, and those to come, run on these cores alone; on none: wherever they do.

    To be called when libraries have counted the cores, so that they start as many threads as otherwise.
    """
    if not chosen or not hasattr(os, "sched_setaffinity"):
        return
    for thread in Path("/proc/self/task").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), chosen)
