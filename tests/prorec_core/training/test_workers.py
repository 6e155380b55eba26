"""Several workers train as one process does: the same gradients, losses and measures, whatever part each one has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prorec_core.training.checkpoint import load_tensors
from prorec_core.training.workers import ALONE
from tests.prorec_core.training.gradients import CASES, gradients, whole

ROOT = Path(__file__).resolve().parents[3]
COUNT = 2


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each of two workers found, who talk to each other by gloo."""
    folder = tmp_path_factory.mktemp("workers")
    program = [sys.executable, "-m", "tests.prorec_core.training.gradients"]
    processes = [
        subprocess.Popen(
            [*program, str(rank), str(COUNT), str(folder / "meeting"), str(folder / str(rank))],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(COUNT)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * COUNT, said
    return [load_tensors(folder / str(rank)) for rank in range(COUNT)]


def _of(found: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{case}/"): each for name, each in found.items() if name.startswith(f"{case}/")}


@pytest.mark.parametrize("case", CASES)
def test_the_sum_of_the_gradients_is_that_of_one_process(case: str, together: list[dict[str, Tensor]]) -> None:
    alone = gradients(case, ALONE)
    assert alone and any(each.abs().max() > 1e-4 for each in alone.values())
    for found in together:
        there = _of(found, case)
        assert there.keys() == alone.keys()
        for name, each in alone.items():
            torch.testing.assert_close(there[name], each, atol=2e-6, rtol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_workers_end_with_one_model(together: list[dict[str, Tensor]]) -> None:
    first, second = (_of(found, "whole") for found in together)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_as_many_workers_make_the_same_again(together: list[dict[str, Tensor]]) -> None:
    first, again = _of(together[0], "whole"), _of(together[0], "again")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_losses_and_measures_are_those_of_one_process(together: list[dict[str, Tensor]]) -> None:
    alone, found = whole(ALONE, still=True)["records"], _of(together[1], "still")["records"]
    torch.testing.assert_close(found, alone, atol=2e-3, rtol=2e-3)
