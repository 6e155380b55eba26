"""A process killed while it trains: the next run goes on from its checkpoint and closes what it left open."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks import places, processes, tracking
from tasks.tracking import TrackedRun, client

TRAINING = """
import sys, time
from pathlib import Path
from prefect import flow
from prorec_core.config import Experiment
from prorec_core.progress import Progress
from tasks import tracking
from tasks.stage import FlowTracking, Stage
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
    tracking.close_dead_runs()
    place = tracking.experiment_id(experiment.name)
    parent = TrackedRun.start(place, "parent")
    stage = Stage("train_collaborative", (), body, "tasks.train_collaborative")
    ref = stage.run(experiment, FlowTracking(experiment_id=place, run_id=parent.id), {})
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


def test_only_runs_of_dead_processes_are_closed(tracked_folder: Path) -> None:
    experiment = tracking.experiment_id("demo")
    alive = TrackedRun.start(experiment, "alive")
    dead, elsewhere = TrackedRun.start(experiment, "dead"), TrackedRun.start(experiment, "elsewhere")
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead.tags({"prorec.process.pid": str(ended.pid)})
    elsewhere.tags({"prorec.process.pid": str(ended.pid), "prorec.process.host": "another"})
    assert [run.info.run_id for run in tracking.close_dead_runs()] == [dead.id]
    status = {name: client().get_run(run.id).info.status for name, run in (("a", alive), ("d", dead), ("e", elsewhere))}
    assert status == {"a": "RUNNING", "d": "KILLED", "e": "RUNNING"}


def test_a_reused_number_is_another_process() -> None:
    own = processes.identity()
    assert not processes.is_dead(own)
    assert processes.is_dead({**own, "started": "earlier"})
    assert not processes.is_dead({**own, "started": "earlier", "host": "another"})
    assert not processes.is_dead({})
    child = subprocess.Popen(["sleep", "60"])
    identity = {**own, "pid": str(child.pid), "started": processes.started(child.pid) or ""}
    assert not processes.is_dead(identity)
    child.kill()
    child.wait()
    assert processes.is_dead(identity)
