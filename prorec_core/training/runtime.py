"""Where training runs and whom it tells. Knows devices and number formats; knows nothing of models."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prorec_core.config import DEVICES, StepMode
from prorec_core.errors import UserError
from prorec_core.progress import Report, silent
from prorec_core.training.steps import Capture, CudaGraphs
from prorec_core.training.workers import ALONE, Workers


@dataclass(frozen=True)
class Runtime:
    """Where a piece of work runs.

    Attributes:
        device: where tensors live.
        report: told of every epoch.
        checkpoints: folder for this piece of work's checkpoints; None keeps none.
        fixed_shapes: pad batches to a few sizes, so that a step waits for nothing that only the device knows.
        capture: records steps and replays them; None: they run as they are. Needs fixed shapes.
        compiled: compile parts of what is trained.
        workers: those that do the work together, this process among them.
    """

    device: torch.device
    report: Report = silent
    checkpoints: Path | None = None
    fixed_shapes: bool = False
    capture: Capture | None = None
    compiled: bool = False
    workers: Workers = ALONE

    def low_precision(self, precision: str) -> bool:
        """Whether matrix products are to be done in bfloat16 (`precision`: auto or float32).

        Several workers do it where all of their hardware can.
        """
        return precision == "auto" and self.workers.every(has_bfloat16(self.device), self.device)


def make_runtime(
    device: str,
    report: Report = silent,
    checkpoints: Path | None = None,
    *,
    steps: StepMode = "eager",
    workers: Workers = ALONE,
) -> Runtime:
    """A runtime on `device` ("auto" takes the first CUDA device, else the CPU), or on the one that a worker was given.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        report: told of every epoch.
        checkpoints: as in `Runtime`.
        steps: how steps run.
        workers: those that train together; their parts of a batch have other sizes every time, so that shapes are not
            fixed.

    Raises:
        UserError: the device is none or not there, or cannot run steps so.
    """
    device = workers.device or device
    if not re.fullmatch(DEVICES, device):
        raise UserError(f"'{device}' is no device", place="device", cure="Give auto, cpu, cuda, cuda:N or mps")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{device}' is not available", place="device", cure="Set device=auto or cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not available", place="device", cure="Set device=auto or cpu")
    place = torch.device(device)
    if steps == "graph" and place.type != "cuda":
        raise UserError(
            f"CUDA graphs need a CUDA device, and this one is {place.type}", place="steps", cure="Set steps=eager"
        )
    if steps == "graph" and workers.count > 1:
        raise UserError("steps of several workers are not captured", place="steps", cure="Set steps=eager or compile")
    return Runtime(
        place,
        report,
        checkpoints,
        fixed_shapes=place.type == "cuda" and workers.count == 1,
        capture=CudaGraphs(place) if steps == "graph" else None,
        compiled=steps == "compile",
        workers=workers,
    )


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
