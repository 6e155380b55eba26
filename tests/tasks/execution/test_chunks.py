"""Chunks made by workers of a real cluster: one dies, one fails, and what they cannot do is told in one line."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from prorec.tasks.execution.chunks import by_workers
from prorec.tasks.execution.cluster import kept
from prorec_core.config_compute import ComputeConfig
from prorec_core.errors import UserError

COMPUTE = ComputeConfig.model_validate({"engine": "ray", "workers": 1})


def doubling(folder: Path, wrong: str) -> Callable[[int], int]:
    """Makes twice a number; dies of 3 the first time, and has its mistakes."""
    if wrong == "at once":
        raise UserError("nothing is there", place="text.model")

    def make(number: int) -> int:
        if number == 3 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 5 and wrong:
            raise ZeroDivisionError("by none")
        return 2 * number

    return make


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_every_chunk_is_made_whatever_dies(tmp_path: Path) -> None:
    told = list[str]()
    chunks = [(str(number), number) for number in range(8)]
    with kept():
        with by_workers(partial(doubling, tmp_path, ""), COMPUTE, told.append) as make:
            assert dict(make(iter(chunks))) == {name: 2 * number for name, number in chunks}
            assert dict(make(iter(chunks[:2]))) == {"0": 0, "1": 2}, "the same workers make more"
        assert told == ["a worker died; another takes its place, and its chunks are made by others"]
        with (
            by_workers(partial(doubling, tmp_path, "at once"), COMPUTE, told.append) as make,
            pytest.raises(UserError, match=r"text\.model: nothing is there"),
        ):
            list(make(iter(chunks)))
        with (
            by_workers(partial(doubling, tmp_path, "later"), COMPUTE, told.append) as make,
            pytest.raises(RuntimeError, match="ZeroDivisionError: by none"),
        ):
            list(make(iter(chunks)))
