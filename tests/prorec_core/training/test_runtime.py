from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.progress import silent
from prorec_core.sections import without_run_only
from prorec_core.stages.work import StageWork
from prorec_core.training.runtime import Runtime, derive_seed, deterministic, has_bfloat16, make_runtime


def test_auto_takes_what_there_is() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert make_runtime("auto").device.type == expected
    assert make_runtime("cpu").device == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda:63", "mps"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(UserError, match=rf"device '{device}' is not available.*Set device=auto"):
        make_runtime(device)


def test_float32_is_never_lowered() -> None:
    runtime = Runtime(torch.device("cpu"))
    assert not runtime.low_precision("float32")
    assert runtime.low_precision("auto") == has_bfloat16(runtime.device)


def test_seeds_differ_by_purpose_and_stay() -> None:
    seeds = {derive_seed(seed, *names) for seed in range(20) for names in [(), ("a",), ("b",), ("a", 1), ("a", 2)]}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(0, "epoch", 3) == derive_seed(0, "epoch", 3)
    assert derive_seed(2**31 - 1, "epoch", 3) < 2**31


def test_the_deterministic_mode_ends_with_its_block() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    with pytest.raises(KeyError), deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError
    assert before == (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_steps_are_captured_where_there_is_what_captures_them() -> None:
    with pytest.raises(UserError, match=r"CUDA graphs need a CUDA device.*Set steps=eager"):
        make_runtime("cpu", steps="graph")
    plain = make_runtime("cpu")
    assert (plain.fixed_shapes, plain.capture, plain.compiled) == (False, None, False), "on a CPU nothing is padded"
    assert make_runtime("cpu", steps="compile").compiled


def test_how_steps_ran_is_told_where_it_can_move_numbers(tmp_path: Path) -> None:
    told = {}
    for experiment in (Experiment(device="cpu"), Experiment(device="cpu", steps="compile")):
        work = StageWork(experiment, {}, {}, tmp_path, tmp_path, silent)
        work.runtime()
        told[experiment.steps] = work.made_with
    plain = {"device": "cpu", "number_format": "float32"}
    assert told == {"eager": plain, "compile": {**plain, "steps": "compile"}}
    assert without_run_only(Experiment(steps="compile")) == without_run_only(Experiment())
