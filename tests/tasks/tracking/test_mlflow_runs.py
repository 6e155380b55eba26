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


def test_a_text_that_is_written_again_is_whole_at_any_moment(
    tracked_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "run")
    run.text("experiment.json", "before")
    set_tags = TrackedRun.tags
    for step in (0, 1):
        left = [step]

        def killed(self: TrackedRun, tags: dict[str, str], left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            set_tags(self, tags)

        with monkeypatch.context() as patch:
            patch.setattr(TrackedRun, "tags", killed)
            with pytest.raises(KeyboardInterrupt):
                run.text("experiment.json", "after")
        assert mlflow_runs.read_text(run.id, "experiment.json") == ("after" if step else "before")
    run.text("experiment.json", "after")
    assert mlflow_runs.read_text(run.id, "experiment.json") == "after"
    assert " " not in client().get_run(run.id).data.tags[f"{mlflow_runs.TEXT_TAG}experiment.json"]


def test_however_many_experiments_others_have_ours_are_found(
    tracked_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "run")
    for name in ("prorec", "another", "PRORec-x", "other-prorec-y"):
        client().create_experiment(name)
    second = mlflow_runs.experiment_id("second")
    search = client().search_experiments
    monkeypatch.setattr(client(), "search_experiments", lambda **words: search(max_results=1, **words))
    assert sorted(mlflow_runs.experiments().values()) == ["demo", "second"]
    assert second in mlflow_runs.experiments()
    assert [each.info.run_id for each in mlflow_runs.search()] == [run.id]
