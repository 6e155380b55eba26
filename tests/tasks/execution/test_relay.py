"""A program on a real cluster: lines both ways, its end told, and nothing left of it, whoever dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prorec.tasks.execution.cluster import Cluster, cluster
from prorec.tasks.execution.relay import Relayed
from prorec_core.config_compute import ComputeConfig

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]
ECHO = """
import os, sys
print(os.getpid(), os.environ["TOLD"], os.getppid(), flush=True)
for line in sys.stdin:
    print(line, end="", flush=True)
"""
"""Says who it is, then what it hears, until its input is closed."""


@pytest.fixture(scope="module")
def found() -> Iterator[Cluster]:
    """A cluster with one core."""
    with cluster(ComputeConfig.model_validate({"engine": "ray", "workers": 1}), 2) as opened:
        yield opened


def _begun(program: Relayed) -> tuple[Iterator[str], int, int]:
    lines = program.lines()
    own, told, relay = next(lines).split()
    assert told == "secret"
    return lines, int(own), int(relay)


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not Path(f"/proc/{pid}").exists()


def test_lines_travel_and_the_end_is_told(found: Cluster) -> None:
    assert found.places >= 1 and ":" in found.address and len(found.machines) == 1
    program = Relayed(["-c", ECHO], {"TOLD": "secret"}, cores=0, gpus=0)
    lines, own, _ = _begun(program)
    program.send("one")
    assert next(lines) == "one\n"
    os.kill(own, signal.SIGKILL)
    assert next(lines, None) is None
    assert program.end(5).status == -signal.SIGKILL
    fails = Relayed(["-c", "raise SystemExit('no store')"], {}, cores=0, gpus=0)
    assert list(fails.lines()) == []
    ended = fails.end(5)
    assert ended.status == 1 and ended.words == "no store"


def test_the_end_of_rays_process_is_the_programs(found: Cluster) -> None:
    program = Relayed(["-c", ECHO], {"TOLD": "secret"}, cores=0, gpus=0)
    lines, own, relay = _begun(program)
    os.kill(relay, signal.SIGKILL)
    assert next(lines, None) is None and program.end(1).status is None
    assert _gone(own)


def test_one_without_room_waits_and_is_ended_at_once(found: Cluster) -> None:
    program = Relayed(["-c", ECHO], {"TOLD": "secret"}, cores=64, gpus=0)
    began = time.monotonic()
    assert program.end(60).status is None and time.monotonic() - began < 10
