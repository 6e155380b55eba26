"""Rows made by workers of a real cluster, of whom one dies: the file of one process."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from prorec.tasks.registry import spread
from prorec.tasks.registry.recommenders import RegisteredVersion
from prorec_core.config_compute import ComputeConfig
from prorec_core.data.histories import Chunk
from prorec_core.generation.batch import BatchSettings, recommend_all, rows_of
from tests.prorec_core.generation.test_batch import SETTINGS, Cycle, make_file

VERSION = RegisteredVersion(name="m", version="1", model_id="", location="", manifest_sha256="")


def rows_with_a_death(version: RegisteredVersion, settings: BatchSettings) -> Callable[[Chunk], bytes]:
    """Stands for a worker with a model; the first that has a second chunk dies of it."""
    died = Path(os.environ["PROREC_ARTIFACTS"]) / "died"
    make, made = rows_of(Cycle(), settings), list[Chunk]()

    def rows(chunk: Chunk) -> bytes:
        made.append(chunk)
        if len(made) == 2 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return make(chunk)

    return rows


@pytest.mark.pipeline
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_workers_make_the_file_of_one_process(
    artifacts_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "_rows", rows_with_a_death)
    alone, told = recommend_all(Cycle(), make_file(tmp_path), SETTINGS, tmp_path / "alone.parquet"), list[str]()
    compute = ComputeConfig.model_validate({"engine": "ray", "workers": 1})
    make = spread.making(VERSION, SETTINGS, compute, told.append)
    result = recommend_all(Cycle(), make_file(tmp_path), SETTINGS, tmp_path / "out.parquet", make=make)
    assert result.sha256 == alone.sha256 and result.users_found == 0
    assert (artifacts_folder / "died").exists()
    assert told == ["a worker died; another takes its place, and its chunks are made by others"]
