"""A device that is full, or gone, is told in one line with what helps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prorec_core.config import AlignConfig
from prorec_core.data.sequences import IntArray, Sequences, from_lists
from prorec_core.errors import MachineError, UserError, one_line
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.loop import fit_next_item
from prorec_core.training.runtime import Runtime
from prorec_core.training.steps import _of_capture
from prorec_core.training.trouble import DeviceFullError, DeviceLostError, of_device, told_of_device

GONE = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported."


def _refused() -> None:
    torch.empty(2**50)


def test_a_batch_that_does_not_fit_is_told_with_its_size_and_the_setting() -> None:
    """An allocation that is refused in truth."""
    net, shop = nn.Linear(1, 1), from_lists([np.arange(6, dtype=np.int32)] * 3, 6)

    def losses(_: HistoryBatch) -> Mapping[str, Tensor]:
        _refused()
        return {}

    def ranks(_: Sequences, targets: IntArray) -> IntArray:
        return targets

    with pytest.raises(DeviceFullError) as found:
        fit_next_item(net, losses, ranks, shop, AlignConfig(), 0, Runtime(torch.device("cpu")))
    told = one_line(found.value)
    assert told.startswith("align: a batch of 3 histories of 3 items does not fit the memory of the device")
    assert "4503599627370496 bytes more were asked for" in told
    assert told.endswith("Set align.tokens_per_batch to less than 512.")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"), DeviceFullError, "2.00 GiB"),
        (RuntimeError("CUDA error: out of memory"), DeviceFullError, "full"),
        (torch.AcceleratorError(GONE), DeviceLostError, "unspecified launch failure)"),
        (RuntimeError(GONE), DeviceLostError, "goes on from its last epoch"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling"), DeviceLostError, "CUBLAS"),
    ],
)
def test_what_a_device_refuses_is_told_in_one_line(error: Exception, kind: type[UserError], words: str) -> None:
    with pytest.raises(kind) as found, told_of_device("evaluate"):
        raise error
    told = one_line(found.value)
    assert told.startswith("evaluate: the device") and words in told and "\n" not in told
    assert isinstance(found.value, MachineError) == (kind is DeviceLostError)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("CUDA error"), KeyError("a")])
def test_errors_of_the_program_stay_what_they_are(error: Exception) -> None:
    assert of_device(error) is None
    with pytest.raises(type(error)), told_of_device("align"):
        raise error


def test_a_mistake_stays_the_mistake_it_is() -> None:
    with pytest.raises(UserError, match="no such column"), told_of_device("align"):
        try:
            raise RuntimeError(GONE)
        except RuntimeError:
            raise UserError("no such column") from None


def test_what_ended_a_capture_is_told_and_not_that_it_ended() -> None:
    def failed(first: Exception) -> BaseException:
        try:
            try:
                raise first
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        except RuntimeError as error:
            return _of_capture(error)

    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
    assert failed(full) is full
    told = failed(ValueError("a question to the device"))
    assert isinstance(told, UserError) and str(told).startswith("steps: a step cannot be captured (")
    assert str(told).endswith("Set steps=eager.")
