"""The store's identity: written once, whoever comes first, and there for good."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec_core.errors import UserError


def test_all_who_come_at_once_agree(tracked_folder: Path) -> None:
    together = Barrier(4)

    def ask(_: int) -> str:
        together.wait()
        return mlflow_runs._own.__wrapped__("")[1]

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1


def test_deleting_experiments_does_not_change_it(tracked_folder: Path) -> None:
    before = mlflow_runs.identity()
    for experiment in client().search_experiments():
        client().delete_experiment(experiment.experiment_id)
    assert mlflow_runs._own.__wrapped__("")[1] == before
    # It holds who is at work on what, too.
    assert client().get_experiment(mlflow_runs.store_experiment()).lifecycle_stage == "active"


def test_texts_beside_a_run(tracked_folder: Path) -> None:
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "run")
    run.text("experiment.json", "{}")
    assert mlflow_runs.read_text(run.id, "experiment.json") == "{}"
    with pytest.raises(UserError, match=rf"MLflow run {run.id}: the file 'summary\.json' of the run is gone"):
        mlflow_runs.read_text(run.id, "summary.json")
