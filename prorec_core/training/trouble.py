"""What a device refuses, said as a user's mistake is: one sentence, where, and the cure.

Knows the errors of PyTorch by their names and words, and imports it not; knows nothing of what was computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from prorec_core.errors import MachineError, UserError, causes

_FULL = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_LOST = (
    "CUDA error",
    "CUDNN_STATUS_",
    "CUBLAS_STATUS_",
    "cuDNN error",
    "CUDA driver error",
    "NVML",
    "unspecified launch",
)
_ASKED = re.compile(r"[Tt]ried to allocate ([0-9.]+ ?[KMGT]?i?B|[0-9]+ bytes)")
_CURES = {
    "embed_text": "Lower text.batch_size, or set device=cpu",
    "evaluate": "Lower evaluate.beams, free memory of the device, or set device=cpu",
}
_CURE = "Free memory of the device, or set device=cpu"
_AGAIN = (
    "Run it again: a training goes on from its last epoch. If it fails again, look at the device, or set device=cpu"
)


class DeviceFullError(UserError):
    """What was asked for does not fit the memory of the device; less would."""


class DeviceLostError(MachineError):
    """The device failed, or went away, in the middle of the work; this process cannot use it any more."""


def is_full(error: BaseException) -> bool:
    """Whether an error of PyTorch's says that a device has no memory left."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = str(error)
    return "OutOfMemoryError" in kinds or ("RuntimeError" in kinds and any(words in said for words in _FULL))


def of_device(error: BaseException, stage: str = "") -> UserError | None:
    """What an error means if a device is to blame, else None; the first in the chain of causes that says so.

    Args:
        error: any.
        stage: during which it happened.
    """
    for cause in causes(error):
        if isinstance(cause, UserError):
            return None
        if is_full(cause):
            return DeviceFullError(
                f"the device's memory is full{asked(cause)}", place=stage, cure=_CURES.get(stage, _CURE)
            )
        kinds, said = {kind.__name__ for kind in type(cause).__mro__}, str(cause)
        if "AcceleratorError" in kinds or ("RuntimeError" in kinds and any(words in said for words in _LOST)):
            first = said.strip().splitlines()[0] if said.strip() else type(cause).__name__
            return DeviceLostError(f"the device failed ({first})", place=stage, cure=_AGAIN)
    return None


def asked(error: BaseException) -> str:
    """How much memory was asked for last, in words that go on after a sentence; nothing where it is not said."""
    found = _ASKED.search(str(error))
    return f"; {found[1]} more were asked for" if found else ""


@contextmanager
def told_of_device(stage: str) -> Iterator[None]:
    """Say in one line what a device refuses while a stage runs.

    Raises:
        DeviceFullError: it has no memory left.
        DeviceLostError: it failed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = of_device(error, stage)
        if found is None:
            raise
        raise found from error
