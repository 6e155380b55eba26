"""A process killed while it trains: the next run goes on from its checkpoint and closes what it left open."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest

from tasks import places, tracking
from tasks.tracking import client

TRAINING = """
import sys, time
from pathlib import Path
from prefect import flow
from prorec_core.config import Experiment
from prorec_core.progress import Progress
from tasks import tracking
from tasks.execution import run_stage
from tasks.stage import FlowTracking, Stage
from tasks.tidy import tidy
from tasks.tracking import TrackedRun

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
    place = tracking.experiment_id(experiment.name)
    parent = TrackedRun.start(place, "parent")
    stage = Stage("train_collaborative", (), body, "tasks.train_collaborative")
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
    assert list((places.artifacts() / "checkpoints").iterdir()) == []

    experiment = client().get_experiment_by_name("prorec-demo").experiment_id
    runs = client().search_runs([experiment])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED", "KILLED", "KILLED"]

    whole = hashlib.sha256(b"1 4 9 16 25").hexdigest()
    assert digest == hashlib.sha256(f"{whole}  model.txt\n".encode()).hexdigest()


PIPELINE = """
import os, sys
from pathlib import Path

os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
from flows.full import prorec
from prorec_core.config import Experiment
from tasks.events import StageEnded, StageProgress, StageStarted, listening

experiment = Experiment.model_validate_json(sys.argv[1])

def run(folder, kill=""):
    # A child that kills itself in the middle of a stage is killed where it matters, every time.
    def hear(event):
        if isinstance(event, StageProgress) and event.stage == kill:
            os.kill(os.getpid(), 9)

    child = os.fork()
    if not child:
        os.environ["PROREC_ARTIFACTS"] = folder
        with listening(hear):
            summary = prorec(experiment=experiment)
        print(" ".join(stage["digest"] for stage in summary["stages"]), flush=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

run(sys.argv[2])
for stage in sys.argv[4:]:
    run(sys.argv[3], stage)
run(sys.argv[3])
"""
KILLED = ("preprocess", "train_collaborative", "align", "quantize", "train_generator")


@pytest.mark.pipeline
def test_every_stage_survives_a_kill(
    prefect_api: str, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = {
        "data": {"demo": {"users": 120, "items": 60}},
        "collaborative": {"epochs": 2, "dim": 16},
        "align": {"epochs": 2},
        "quantize": {"codes": 8},
        "generator": {"epochs": 2, "dim": 16, "validation_users": 50},
        "evaluate": {"bootstrap_samples": 100},
    }
    folders = [tmp_path / "undisturbed", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
        shutil.copyfile(empty_database, folder / "mlflow.db")
    script = tmp_path / "pipeline.py"
    script.write_text(PIPELINE)
    words = [sys.executable, str(script), json.dumps(experiment), *map(str, folders), *KILLED]
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    whole, first, *killed, again, last = done.stdout.splitlines()
    assert (first, killed, last) == ("0", ["-9"] * len(KILLED), "0"), done.stderr
    assert again == whole

    monkeypatch.setenv("PROREC_ARTIFACTS", str(folders[1]))
    runs = list(tracking.search(""))
    killed_stages = sorted(run.data.tags.get("prorec.stage", "") for run in runs if run.info.status == "KILLED")
    assert killed_stages == sorted([*KILLED, *[""] * len(KILLED)])
    assert {run.info.status for run in runs} == {"KILLED", "FINISHED"}
    assert all("Its process died." in run.data.tags["prorec.failure"] for run in runs if run.info.status == "KILLED")
    flow_runs = {run.data.tags["prefect.flow_run_id"] for run in runs}
    assert _states(flow_runs) == ["CRASHED"] * len(KILLED) + ["COMPLETED"]


def _states(flow_runs: set[str]) -> list[str]:
    """The states of flow runs, in the order in which they started."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as prefect:
        found = [prefect.read_flow_run(UUID(each)) for each in flow_runs]
    found.sort(key=lambda run: str(run.start_time))
    return [run.state.type.value for run in found if run.state]
