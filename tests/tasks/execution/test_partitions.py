"""A log read and filtered by tasks of a real cluster, of which one dies: data set and mistakes of one process."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from prorec.tasks.execution.cluster import kept
from prorec.tasks.execution.partitions import by_ray_data
from prorec.tasks.execution.stage import Work
from prorec.tasks.stages.preprocess import preprocess
from prorec_core.artifacts import sha256_file
from prorec_core.config import Experiment
from prorec_core.config_compute import ComputeConfig
from prorec_core.data import in_parts, pieces
from prorec_core.data.pieces import Look, Piece, Plan, Reading, look, rows_in
from prorec_core.progress import silent
from tests.prorec_core.data.test_in_parts import outcome, settings_of, shop, write_log

COMPUTE = ComputeConfig.model_validate({"engine": "ray", "workers": 1})


def look_and_die(folder: Path, piece: Piece, how: Reading) -> Look:
    """Looks at a piece; the first worker that has a second file dies of it."""
    if piece.file.name == "1.csv" and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return look(piece, how)


def too_late(piece: tuple[Piece, int], plan: Plan) -> Iterator[pl.DataFrame]:
    """Finds another second file than was looked at."""
    found, start = piece
    yield from rows_in(replace(found, size=1) if found.file.name == "1.csv" else found, start, plan)


@pytest.mark.pipeline
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_tasks_make_the_data_set_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_WORTH", 0)
    monkeypatch.setattr(in_parts, "_ROWS_OF_PART", 30)
    write_log(tmp_path, shop(), 2, "csv")
    config = settings_of(tmp_path, ties="shuffle", rating_column="rating", min_rating=3)
    alone = outcome(config, tmp_path / "alone")
    assert isinstance(alone, dict)

    spread = partial(by_ray_data, COMPUTE)
    with kept():
        monkeypatch.setattr(in_parts, "look", partial(look_and_die, tmp_path))
        experiment = Experiment.model_validate({"data": config.model_dump(), "compute": COMPUTE.model_dump()})
        (folder := tmp_path / "stage").mkdir()
        work = Work(preprocess.part(experiment), {}, {}, folder, tmp_path / "state", silent, None)  # type: ignore[arg-type]
        preprocess.body(work)
        assert {path.name: sha256_file(path) for path in folder.iterdir()} == alone
        assert work.made_with == {"engine": "ray", "workers": "1"} and (tmp_path / "died").exists()
        monkeypatch.setattr(in_parts, "_rows_of_piece", too_late)
        told = outcome(config, tmp_path / "shared", spread)
        assert isinstance(told, str) and "1.csv: a worker on" in told and "finds another file there" in told
        rows = shop()
        rows[70][2] = -5
        write_log(tmp_path, rows, 2, "csv")
        assert outcome(config, tmp_path / "shared", spread) == outcome(config, tmp_path / "alone")
