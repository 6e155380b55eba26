"""A process killed while it trains: the next run goes on from its checkpoint and closes what it left open."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest

from prorec.tasks.local import paths
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import client
from tests.campaigns.kills import PLACES

TRAINING = """
import sys, time
from pathlib import Path
from prefect import flow
from prorec_core.config import Experiment
from prorec_core.progress import Progress
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.execution.runner import run_stage
from prorec.tasks.execution.stage import FlowTracking, Stage
from prorec.tasks.upkeep.tidy import tidy
from prorec.tasks.tracking.mlflow_runs import TrackedRun

EPOCHS = 5

def body(work):
    work.checkpoints.mkdir(parents=True, exist_ok=True)
    state = work.checkpoints / "state.txt"
    done = state.read_text().split() if state.exists() else []
    Path(sys.argv[1]).write_text(str(len(done)))
    for epoch in range(len(done) + 1, EPOCHS + 1):
        done.append(str(epoch * epoch))
        state.write_text(" ".join(done))
        work.report(Progress(epoch, EPOCHS, "epoch", {"loss": 1 / epoch}))
        if sys.argv[2] == "slow" and epoch == 3:
            Path(sys.argv[1] + ".now").touch()
            time.sleep(60)
    (work.folder / "model.txt").write_text(" ".join(done))

@flow(name="killed")
def killed(experiment: Experiment):
    tidy()
    place = mlflow_runs.experiment_id(experiment.name)
    parent = TrackedRun.start(place, "parent")
    stage = Stage("train_collaborative", (), body, "prorec.tasks.stages.train_collaborative")
    ref = run_stage(stage, experiment, FlowTracking(experiment_id=place, run_id=parent.id), {})
    parent.finish()
    print(ref.digest)

killed(Experiment())
"""


def _start(tmp_path: Path, folder: Path, api: str, pace: str) -> subprocess.Popen[str]:
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    environment = {**os.environ, "PROREC_ARTIFACTS": str(folder), "PREFECT_API_URL": api}
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "begun"), pace],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _digest(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return out.split()[-1]


@pytest.mark.pipeline
def test_killed_training_goes_on(prefect_api: str, tracked_folder: Path, tmp_path: Path) -> None:
    first = _start(tmp_path, tracked_folder, prefect_api, "slow")
    deadline = time.monotonic() + 100
    while not (tmp_path / "begun.now").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    digest = _digest(_start(tmp_path, tracked_folder, prefect_api, "fast"))
    assert (tmp_path / "begun").read_text() == "3"
    assert list((paths.artifacts() / "checkpoints").iterdir()) == []

    experiment = client().get_experiment_by_name("prorec-demo").experiment_id
    runs = client().search_runs([experiment])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED", "KILLED", "KILLED"]

    whole = hashlib.sha256(b"1 4 9 16 25").hexdigest()
    assert digest == hashlib.sha256(f"{whole}  model.txt\n".encode()).hexdigest()


@pytest.mark.pipeline
def test_every_stage_survives_a_kill(prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [sys.executable, "-m", "tests.campaigns.kills", "--once", "--folder", str(tmp_path)]
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    # A stage may be over, and so may all, before a signal arrives that was meant for it.
    assert figures["kills"] == figures["survived"] >= len(PLACES) - 1
    assert sum(1 for kinds in figures["by_stage"].values() if sum(kinds.values())) >= len(PLACES) - 3

    monkeypatch.setenv("PROREC_ARTIFACTS", str(tmp_path / "round-1"))
    runs = list(mlflow_runs.search(""))
    assert {run.info.status for run in runs} == {"KILLED", "FINISHED"}
    killed = [run.data.tags for run in runs if run.info.status == "KILLED"]
    # SIGKILL leaves it to the next run to say so.
    reasons = {tags["prorec.failure"].rpartition(": ")[2].partition(" (")[0] for tags in killed}
    assert reasons == {"stopped", "Its process died."}
    flow_runs = {run.data.tags["prefect.flow_run_id"] for run in runs}
    *before, last = _states(flow_runs)
    # One may have been killed when its flow run was over.
    assert before.count("CRASHED") >= len(before) - 1 and last == "COMPLETED"


def _states(flow_runs: set[str]) -> list[str]:
    """The states of flow runs, in the order in which they started."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as prefect:
        found = [prefect.read_flow_run(UUID(each)) for each in flow_runs]
    found.sort(key=lambda run: str(run.start_time))
    return [run.state.type.value for run in found if run.state]
