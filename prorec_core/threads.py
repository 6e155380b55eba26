"""How the threads of a process that trains wait for each other. Knows environment variables; knows no libraries."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

WAITING: Mapping[str, str] = {
    # Threads that wait for each other spin, but briefly: to sleep at once costs an idle machine a third of its
    # speed, to spin for long a busy one several times as much. Other OpenMPs than GNU's read the policy alone.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "2000",
}
"""What is set before torch is loaded."""


def wait_briefly() -> None:
    """Set it for this process, where torch is not loaded yet and nobody has set anything else."""
    if "torch" not in sys.modules:
        for name, value in WAITING.items():
            os.environ.setdefault(name, value)
