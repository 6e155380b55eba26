"""Every training on a CUDA device, its steps captured and called; skipped where there is none.

Needs nothing but `prorec_core`'s libraries and pytest: `python -m pytest --noconftest tests/prorec_core/test_card.py`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.progress import Progress
from prorec_core.sequential.stage import train_collaborative
from prorec_core.training.runtime import make_runtime
from prorec_core.training.trouble import DeviceFullError
from tests.prorec_core.test_steps import DRAWN, EXACT, Found, Training, collaborative

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def assert_same(found: Found, other: Found) -> None:
    assert found[0] == other[0]
    for name, tensor in other[1].items():
        assert torch.equal(found[1][name], tensor), name


@pytest.mark.parametrize("train", DRAWN.values(), ids=DRAWN.keys())
def test_captured_steps_train_what_called_ones_do_to_the_bit_and_twice_the_same(train: Training) -> None:
    captured = train(make_runtime("cuda", steps="graph"))
    assert_same(captured, train(make_runtime("cuda", steps="graph")))
    assert_same(captured, train(make_runtime("cuda")))


@pytest.mark.parametrize("train", EXACT.values(), ids=EXACT.keys())
def test_a_card_trains_what_a_processor_does(train: Training) -> None:
    (records, _), (plain, _) = train(make_runtime("cuda", steps="graph")), train(make_runtime("cpu"))
    for record, other in zip(records, plain, strict=True):
        losses = {name: value for name, value in other.items() if name.startswith("loss")}
        assert {name: record[name] for name in losses} == pytest.approx(losses, rel=5e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["sasrec", "align", "generator"])
def test_compiled_parts_train_what_plain_ones_do_but_for_roundings(name: str) -> None:
    (records, _), (plain, _) = EXACT[name](make_runtime("cuda", steps="compile")), EXACT[name](make_runtime("cuda"))
    for record, other in zip(records, plain, strict=True):
        losses = {each: value for each, value in other.items() if each.startswith("loss")}
        assert {each: record[each] for each in losses} == pytest.approx(losses, rel=5e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["sasrec", "align", "align, sampled", "generator"])
def test_a_captured_training_goes_on_from_its_checkpoint_to_the_same_bits(name: str, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.unit == "epoch" and progress.done == 1:
            raise KeyboardInterrupt

    whole = DRAWN[name](make_runtime("cuda", steps="graph"))
    with pytest.raises(KeyboardInterrupt):
        DRAWN[name](make_runtime("cuda", stop, tmp_path, steps="graph"))
    assert_same(DRAWN[name](make_runtime("cuda", checkpoints=tmp_path, steps="graph")), whole)


def _large() -> Sequences:
    random = np.random.default_rng(0)
    return from_lists([random.integers(0, 20_000, 40).astype(np.int32) for _ in range(1000)], 20_000)


@pytest.mark.parametrize("steps", ["eager", "graph"])
def test_a_batch_that_does_not_fit_names_itself_and_the_setting(steps: Any) -> None:
    from prorec_core.config import CollaborativeConfig

    config = CollaborativeConfig(dim=32, epochs=1, tokens_per_batch=20_000)
    torch.cuda.empty_cache()
    card = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (200 << 20)) / card)
    try:
        with pytest.raises(DeviceFullError, match=r"a batch of .* histories of .* items does not fit") as told:
            train_collaborative(config, _large(), 0, make_runtime("cuda", steps=steps))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "collaborative.tokens_per_batch to less than 20,000" in str(told.value)


_FAILS = """
import sys, torch
from pathlib import Path
from prorec_core.training.runtime import make_runtime
from prorec_core.training.trouble import told_of_device
from tests.prorec_core.test_steps import DRAWN

def fail(progress):
    if progress.unit == "epoch" and progress.done == 1:
        torch.zeros(1, device="cuda")[torch.tensor([9], device="cuda")]

try:
    with told_of_device("train_collaborative"):
        DRAWN["sasrec"](make_runtime("cuda", fail, Path(sys.argv[1]), steps="graph"))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_card_that_fails_is_told_in_one_line_and_the_training_goes_on(tmp_path: Path) -> None:
    failed = subprocess.run([sys.executable, "-c", _FAILS, str(tmp_path)], capture_output=True, text=True, check=True)
    assert failed.stdout.startswith("DeviceLostError"), failed.stdout
    assert "device-side assert" in failed.stdout and "goes on from its last epoch" in failed.stdout
    train = collaborative(dropout=0.3)
    resumed: list[int] = []

    def report(progress: Progress) -> None:
        if progress.unit == "epoch":
            resumed.append(progress.done)

    found = train(make_runtime("cuda", report, tmp_path, steps="graph"))
    assert resumed == [2]
    assert_same(found, train(make_runtime("cuda", steps="graph")))
