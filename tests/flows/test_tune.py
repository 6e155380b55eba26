"""`prorec tune` as a user meets it, each time in a process of its own; one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
import yaml
from mlflow import MlflowClient

from prorec.flows import tune
from prorec.flows.configuration.experiments import changed, load
from prorec.flows.configuration.spaces import Space, plan
from prorec.flows.local.members import Members
from prorec.flows.tune import seconds_left
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.fitting import Size, fitted
from tests.toys import noting

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 20
TINY = ["data.demo.users=120", "data.demo.items=60", "collaborative.dim=16", f"collaborative.patience={EPOCHS}"]
SPACE = {
    "mine": {
        "collaborative.dropout": {"low": 0.1, "high": 0.5},
        "collaborative.epochs": {"choices": [EPOCHS, EPOCHS + 1]},
    }
}


def _start(*words: str, folder: Path, api: str = "") -> subprocess.Popen[str]:
    settings = [word for setting in TINY for word in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "prorec", "tune", "demo", *settings, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PROREC_ARTIFACTS": str(folder), **({"PREFECT_API_URL": api} if api else {})},
    )


def _space(folder: Path, found: Mapping[str, Any]) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(found))
    return str(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--space", "algin"], "--space: unknown space 'algin'. Did you mean 'align'?"),
        (["--json", "no/such/folder.json"], "--json no/such/folder.json: the folder does not exist."),
        (["--study", "../x"], "--study: '../x' cannot be a name."),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words: list[str], message: str, tmp_path: Path) -> None:
    process = _start(*words, folder=tmp_path / "artifacts")
    out, told = process.communicate(timeout=100)
    assert process.returncode == 2 and out == ""
    assert len(told.splitlines()) == 1 and told.startswith("prorec: ") and message in told
    assert not (tmp_path / "artifacts").exists()


def test_a_table_of_codes_that_is_not_there_is_told_before_what_trials_share_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(tune, "run_stage", noting(made))
    monkeypatch.setattr("prorec.tasks.tracking.store.fetch", lambda _: tmp_path)
    pl.DataFrame({"item_id": ["a", "b"]}).write_parquet(tmp_path / "items.parquet")
    base = Experiment.model_validate({"quantize": {"table": str(tmp_path / "codes.csv")}})
    planned: Any = SimpleNamespace(shared=("preprocess", "train_collaborative", "quantize"), base=base)
    run: Any = SimpleNamespace(experiment="e", id="r")
    study: Any = SimpleNamespace(ended=0)
    with pytest.raises(UserError, match=r"quantize\.table=.*codes\.csv: there is no such file"):
        tune._try_all(planned, study, 1, run, cast("Members", None))
    assert made == ["preprocess"]


def test_time_left_follows_what_trials_took() -> None:
    assert seconds_left([], 3) is None
    assert seconds_left([{"seconds": 2.0}, {"seconds": 4.0}, {"seconds": None}], 3) == 9.0


@pytest.mark.pipeline
def test_a_tuning_that_was_killed_goes_on(
    tmp_path: Path, prefect_api: str, begin_store: Callable[[Path], None]
) -> None:
    folder, out = tmp_path / "artifacts", tmp_path / "out.json"
    begin_store(folder)
    words = ["--space", _space(tmp_path, SPACE), "--trials", "3", "--json", str(out)]
    first = _start(*words, folder=folder, api=prefect_api)
    assert first.stderr is not None
    begun = ""
    for line in first.stderr:
        begun = line if " of 3" in line else begun
        if begun.startswith("2 of 3") and line.startswith("train_collaborative: epoch 2/"):
            first.send_signal(signal.SIGKILL)
            break
    first.communicate(timeout=100)
    assert first.returncode == -signal.SIGKILL and not out.exists()
    killed = begun.partition(": ")[2].partition(" · ")[0].strip()

    again = _start(*words, folder=folder, api=prefect_api)
    shown, told = again.communicate(timeout=200)
    assert again.returncode == 0, told
    lines = told.splitlines()
    resumed = next(place for place, line in enumerate(lines) if line.startswith("2 of 3"))
    assert killed in lines[resumed] and not any(line.startswith("1 of 3") for line in lines)
    epochs = [line for line in lines[resumed:] if line.startswith("train_collaborative: epoch")]
    assert not epochs[0].startswith("train_collaborative: epoch 1/"), "its training goes on from the last checkpoint"

    found = json.loads(out.read_text())
    trials = found["trials"]
    assert [trial["trial"] for trial in trials] == [1, 2, 3] and {trial["state"] for trial in trials} == {"complete"}
    assert len({str(trial["values"]) for trial in trials}) == 3
    best = max(trials, key=lambda trial: float(trial["value"]))
    assert found["best"] == best and found["stage"] == "train_collaborative"
    pasted = load("demo", [*TINY, *found["set"]])
    assert pasted.collaborative.dropout == best["values"]["collaborative.dropout"]
    assert all(f"--set {setting}" in shown for setting in found["set"]) and found["yaml"] in shown

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [each.experiment_id for each in client.search_experiments() if each.name == "prorec-demo"]
    runs = client.search_runs([experiment])
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}
    parent = next(run for run in runs if "prorec.study" in run.data.tags and run.info.status == "FINISHED")
    assert parent.data.metrics["best_validation_ndcg_at_10"] == best["value"]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    children = {run.info.run_name: run for run in below if run.info.run_name.startswith("trial ")}
    assert {run.info.status for run in children.values()} == {"FINISHED"} and len(children) == 3
    for trial in trials:
        child = children[f"trial {trial['trial']}"]
        assert child.info.run_id == trial["run_id"]
        assert child.data.metrics["best_validation_ndcg_at_10"] == trial["value"]
        stage = next(run for run in runs if run.data.tags.get("mlflow.parentRunId") == child.info.run_id)
        history = client.get_metric_history(stage.info.run_id, "validation_ndcg_at_10")
        assert max(metric.value for metric in history) == trial["value"], "it is the best epoch's on validation users"
        assert len({metric.step for metric in history}) == trial["epochs"]
        assert not any("test" in name for name in (*child.data.metrics, *stage.data.metrics))
    made = [run for run in runs if run.info.status == "FINISHED" and run.data.tags.get("prorec.stage") == "preprocess"]
    assert len(made) == 1, "what trials share is made once"
    files = Path(parent.info.artifact_uri) / "tuning"
    assert {path.name for path in files.rglob("*.*")} == {"trials.json", "best.yaml", "history.png", "slices.png"}
    assert yaml.safe_load((files / "best.yaml").read_text()) == yaml.safe_load(found["yaml"])
    assert not list((folder / "checkpoints").iterdir()) and not list((folder / "work").iterdir())

    other = _start(*words, "--set", "collaborative.layers=1", folder=folder, api=prefect_api)
    _, told = other.communicate(timeout=100)
    assert other.returncode == 2 and len(told.splitlines()) == 1
    assert "study demo-mine: the study exists with other settings: collaborative.layers was 2, is 1" in told


def test_what_follows_from_a_tuned_number_is_told_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs follow from the size of a batch: trials had those of the batch as it stood."""
    size = Size(22_363, 12_101, 198_502, 17.0)
    monkeypatch.setattr(tune, "fitted", lambda experiment, _: fitted(experiment, size))
    given = Experiment.model_validate({"data": {"source": "tables"}, "collaborative": {"dropout": 0.4}})
    ranges = {"align.tokens_per_batch": {"choices": [1024, 4096]}, "collaborative.dropout": {"low": 0.1, "high": 0.5}}
    space = Space.model_validate({"name": "mine", "ranges": ranges, "places": dict.fromkeys(ranges, "here")})
    planned = plan(space, fitted(given, size), "align")
    best = {"align.tokens_per_batch": 4096, "collaborative.dropout": 0.2}
    beside = tune.numbers_beside(given, planned, best, ArtifactRef(stage="preprocess", digest="d", run_id="r", uri="u"))
    assert beside == {"align.epochs": planned.base.align.epochs}
    found = fitted(changed(given, {**best, **beside}, ""), size)
    assert found == planned.experiment(best).model_copy(update={"name": found.name})
