"""A stack with its real servers and a store of its own, as its user meets it."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from prorec.flows.access import secret
from prorec.flows.stack import children, state, supervisor
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parents[3]
TINY = tiny({"collaborative.epochs": 150, "collaborative.patience": 150})
"""Its collaborative training lasts long enough to be killed: no patience ends it early."""
SILENCE = "40"
"""Seconds without heartbeat after which a run counts as crashed; Prefect sends none more often than every 30."""


class Stack:
    """A stack of its own, as its user meets it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ports = free_ports()
        self._monkeypatch = monkeypatch
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

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`prorec up --detach`; what this process then asks MLflow's server it asks with the password."""
        done = self.prorec("up", "--detach", *self.options, *words)
        if done.returncode == 0:
            for name, value in secret.for_mlflow(self.password).items():
                self._monkeypatch.setenv(name, value)
        return done

    @property
    def password(self) -> str:
        """What the servers ask for."""
        return secret.read(state.folder())

    @property
    def login(self) -> tuple[str, str]:
        """The user and the password."""
        return secret.USER, self.password

    def prorec(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("prorec", *words, environment=self.environment)

    def prefect(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("prefect", *words, environment=self._told())

    def register(self) -> subprocess.CompletedProcess[str]:
        return self.run("prorec.flows.stack.deployments", environment=self._told())

    def _told(self) -> dict[str, str]:
        """The environment after `eval "$(prorec status --env)"`."""
        script = f'eval "$({shlex.join([sys.executable, "-m", "prorec", "status", "--env"])})" && env -0'
        done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, cwd=ROOT, env=self.environment)
        return dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)

    def run(self, module: str, *words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=240
        )

    def ask(self, kind: str, path: str, **content: Any) -> Any:
        """Ask Prefect's server, and again where its database is busy (503), as Prefect's own clients do."""
        for _ in range(5):
            answer = httpx.request(kind, f"{self.api}{path}", auth=self.login, timeout=30, trust_env=False, **content)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1.0)
        answer.raise_for_status()
        return answer.json() if answer.content else None

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
def stack(artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack that is not up yet; down afterwards, however the test ends."""
    made = Stack(artifacts_folder, monkeypatch)
    yield made
    if state.running():
        made.prorec("down")
    supervisor.clear_left_over(state.read())
