"""Where training runs and whom it tells. Knows devices and number formats; knows nothing of models."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prorec_core.errors import UserError
from prorec_core.progress import Report, silent
from prorec_core.training.workers import ALONE, Workers


@dataclass(frozen=True)
class Runtime:
    """Where a piece of work runs.

    Attributes:
        device: where tensors live.
        report: told of every epoch.
        checkpoints: folder for this piece of work's checkpoints; None keeps none.
        workers: those that do the work together, this process among them.
    """

    device: torch.device
    report: Report = silent
    checkpoints: Path | None = None
    workers: Workers = ALONE

    def low_precision(self, precision: str) -> bool:
        """Whether matrix products are to be done in bfloat16 (`precision`: auto or float32).

        Several workers do it where all of their hardware can.
        """
        return precision == "auto" and self.workers.every(has_bfloat16(self.device), self.device)


def make_runtime(
    device: str, report: Report = silent, checkpoints: Path | None = None, workers: Workers = ALONE
) -> Runtime:
    """A runtime on `device` ("auto" takes the first CUDA device, else the CPU), or on the one that a worker was given.

    Raises:
        UserError: the device is not there.
    """
    device = workers.device or device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{device}' is not available", place="device", cure="Set device=auto or cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not available", place="device", cure="Set device=auto or cpu")
    return Runtime(torch.device(device), report, checkpoints, workers)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.backends.cpu.get_cpu_capability()
        return bool(torch.cpu._is_avx512_bf16_supported()) if "AVX512" in capabilities else False
    return False


def derive_seed(seed: int, *names: object) -> int:
    """A seed for one purpose, from the experiment's seed and the names of the purpose; below 2**31."""
    words = [seed, *(zlib.crc32(str(name).encode()) for name in names)]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)


@contextmanager
def deterministic() -> Iterator[None]:
    """Have torch use algorithms whose result does not depend on the order of threads."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    # A property of the module, which type checkers cannot see.
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # a tenth of a step, for memory never read
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warned)
        memory.fill_uninitialized_memory = filled
