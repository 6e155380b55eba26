"""The stack with its real servers, from `prorec up` to `prorec down`: a run fails, is put right, killed, and ends well.

Nothing in the project helps: the failure is a text model that is not there yet, the kill a SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.stack import children, state, supervisor
from prorec_core.text.encoders import packaged_folder

ROOT = Path(__file__).resolve().parents[3]
TINY = {
    "data": {"demo": {"users": 120, "items": 60}},
    "collaborative": {"epochs": 150, "dim": 16},
    "align": {"epochs": 1},
    "quantize": {"codes": 8},
    "generator": {"epochs": 1, "dim": 16, "validation_users": 50},
    "evaluate": {"bootstrap_samples": 100},
}
SILENCE = "40"
"""Seconds without heartbeat after which a run counts as crashed; Prefect sends none more often than every 30."""


class Stack:
    """A stack of its own, as its user meets it."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")},
            "PROREC_ARTIFACTS": str(folder),
            "PROREC_HEARTBEAT_TIMEOUT": SILENCE,
            "PYTHONPATH": str(ROOT),
        }
        self.options = ["--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
        self.api = f"http://127.0.0.1:{ports[0]}/api"
        self.mlflow = MlflowClient(f"http://127.0.0.1:{ports[1]}")
        self.pages = [f"http://127.0.0.1:{port}/" for port in ports]

    def prorec(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self._run("flows.cli", *words, environment=self.environment)

    def prefect(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self._run("prefect", *words, environment={**self.environment, "PREFECT_API_URL": self.api})

    def _run(self, module: str, *words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=240
        )

    def ask(self, kind: str, path: str, **content: Any) -> Any:
        answer = httpx.request(kind, f"{self.api}{path}", timeout=30, trust_env=False, **content)
        answer.raise_for_status()
        return answer.json()

    def flow_run(self, run: str) -> tuple[str, str]:
        """The type and the message of a flow run's state."""
        found = self.ask("GET", f"/flow_runs/{run}")["state"]
        return found["type"], found["message"] or ""

    def reaches(self, run: str, *kinds: str) -> str:
        """Wait until a flow run is in a state of one of these types; returns its message."""
        until(lambda: self.flow_run(run)[0] in kinds)
        return self.flow_run(run)[1]

    def runs(self, stage: str) -> list[Run]:
        """The MLflow runs of a stage, the newest first."""
        experiment = self.mlflow.get_experiment_by_name("prorec-demo")
        if experiment is None:
            return []
        every = self.mlflow.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
        return [run for run in every if str(run.info.run_name).startswith(f"{stage} ")]


def free_ports() -> list[int]:
    """Two ports that nothing listens on."""
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind((children.HOST, 0))
        return [int(probe.getsockname()[1]) for probe in (one, other)]


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def stack(artifacts_folder: Path) -> Iterator[Stack]:
    """A stack that is not up yet; down afterwards, however the test ends."""
    made = Stack(artifacts_folder)
    yield made
    if state.running():
        made.prorec("down")
    supervisor.clear_left_over(state.read())


@pytest.mark.pipeline
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows the environment of processes")
def test_up_fail_retry_kill_retry_down(stack: Stack, tmp_path: Path) -> None:
    up = stack.prorec("up", "--detach", *stack.options)
    assert up.returncode == 0, up
    assert all(page.rstrip("/") in up.stdout for page in stack.pages) and "prorec/full" in up.stdout
    assert all("<html" in httpx.get(page, trust_env=False).text for page in stack.pages)
    found = state.running()
    assert found is not None

    # A wrong value is refused when the run is created.
    deployment = stack.ask("GET", "/deployments/name/prorec/full")["id"]
    with pytest.raises(httpx.HTTPStatusError, match=r"409|422"):
        parameters = {"experiment": {"generator": {"epochs": 0}}}
        stack.ask("POST", f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters})

    # A stage fails, and says why in both places.
    model = tmp_path / "model"
    parameters = {"experiment": {**TINY, "text": {"model": str(model)}}}
    done = stack.prefect("deployment", "run", "prorec/full", "--params", json.dumps(parameters), "--watch")
    assert done.returncode != 0, done
    run = stack.ask("POST", "/flow_runs/filter", json={"limit": 1})[0]["id"]
    kind, message = stack.flow_run(run)
    assert kind == "FAILED" and f"text.model: the text encoder '{model}' was not found" in message
    assert [each.info.status for each in stack.runs("embed_text")] == ["FAILED"]

    # Put right, it is retried from that stage on; its process and the worker's are killed while it trains.
    packaged = packaged_folder("all-MiniLM-L6-v2")
    assert packaged is not None
    model.symlink_to(packaged)
    assert stack.prefect("flow-run", "retry", run).returncode == 0

    def training() -> Run | None:
        begun = [each for each in stack.runs("train_collaborative") if each.info.status == "RUNNING"]
        return begun[0] if begun and begun[0].data.metrics else None

    until(lambda: training() is not None)
    trained = training()
    assert trained is not None
    kill(found, int(trained.data.tags["prorec.process.pid"]))

    # Prefect notices the silence by itself, and the supervisor starts another worker.
    assert "no heartbeat" in stack.reaches(run, "CRASHED", "FAILED", "COMPLETED")
    until(lambda: stack.prorec("status").returncode == 0)
    again = state.running()
    assert again is not None and {name: child.restarts for name, child in again.children.items()} == {
        **dict.fromkeys(again.children, 0),
        "worker": 1,
    }

    # The same run goes on where it was.
    assert stack.prefect("flow-run", "retry", run).returncode == 0
    until(lambda: stack.flow_run(run)[0] not in {"CRASHED", "SCHEDULED"})
    assert stack.reaches(run, "CRASHED", "FAILED", "COMPLETED") == "" and stack.flow_run(run)[0] == "COMPLETED"
    ends = {stage: Counter(each.info.status for each in stack.runs(stage)) for stage in STAGES}
    assert ends == {
        **{stage: {"FINISHED": 1} for stage in STAGES},
        "embed_text": {"FAILED": 1, "FINISHED": 1},
        "train_collaborative": {"KILLED": 1, "FINISHED": 1},
    }

    assert stack.prorec("down").returncode == 0
    assert not children.marked(found.mark) and state.read() is None
    assert stack.prorec("status").returncode == 1
    for page in stack.pages:
        with pytest.raises(httpx.ConnectError):
            httpx.get(page, trust_env=False)


STAGES = ("preprocess", "embed_text", "train_collaborative", "align", "quantize", "train_generator", "evaluate")


def kill(found: state.StackState, flow: int) -> None:
    """Kill a flow run's process and the worker so that neither can tell of the other."""
    worker = found.children["worker"].pid
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    os.kill(flow, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
