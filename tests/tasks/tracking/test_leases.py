"""Who does a piece of work: one process at a time, whatever dies, with real processes on one store."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from prorec.tasks.local import paths, processes
from prorec.tasks.tracking import leases, mlflow_runs
from prorec.tasks.tracking.leases import LeaseLostError, lease
from prorec.tasks.tracking.mlflow_runs import client

_KEY = "a" * 64
_SECONDS = 3.0
Start = Callable[..., BaseProcess]


def _work(store: str, folder: Path, machine: str, log: Path, seconds: float, rounds: int, expiry: float) -> None:
    """Have the work some times, for some seconds each; what happens goes to the log."""
    os.environ.update(
        {"MLFLOW_TRACKING_URI": store, "PROREC_ARTIFACTS": str(folder), leases.EXPIRY_VARIABLE: str(expiry)}
    )
    if machine:
        processes._namespace = lambda: machine  # type: ignore[assignment]

    def note(what: str) -> None:
        with log.open("a") as stream:
            stream.write(f"{what} {os.getpid()} {time.monotonic()}\n")

    for _ in range(rounds):
        with lease(_KEY, lambda who, _: note(f"waits-for-{who.split()[1]}")) as mine:
            note("has")
            end = time.monotonic() + seconds
            try:
                while time.monotonic() < end:
                    time.sleep(0.02)
                    mine.expect()
            except LeaseLostError:
                note("lost")
                return
            note("leaves")


@pytest.fixture
def start(tracked_folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a process that works, in a folder of artifacts of its own and perhaps on a machine of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", leases.__name__])
    _ = client(), mlflow_runs.store_experiment()
    begun: list[BaseProcess] = []

    def begin(machine: str, seconds: float, rounds: int = 1, expiry: float = 60.0, folder: str = "") -> BaseProcess:
        place = tmp_path / (folder or f"folder-{len(begun)}")
        words = (paths.tracking_uri(), place, machine, tmp_path / "log", seconds, rounds, expiry)
        begun.append(context.Process(target=_work, args=words))
        begun[-1].start()
        return begun[-1]

    yield begin
    for each in begun:
        each.kill()
        each.join()


def _lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def _until(log: Path, what: str, of: BaseProcess) -> float:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for kind, pid, when in _lines(log):
            if kind == what and int(pid) == of.pid:
                return float(when)
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen: {_lines(log)}")


def test_one_at_a_time_and_nothing_is_left(start: Start, tmp_path: Path) -> None:
    for each in [start(f"machine-{number}", 0.05, rounds=3) for number in range(3)]:
        each.join(60)
        assert each.exitcode == 0
    happened = [(kind, pid) for kind, pid, _ in _lines(tmp_path / "log") if kind in {"has", "leaves"}]
    assert len(happened) == 18
    assert all(
        first == ("has", pid) and second == ("leaves", pid)
        for first, second, pid in (
            (happened[place], happened[place + 1], happened[place][1]) for place in range(0, 18, 2)
        )
    )
    assert leases._tags() == {}


@pytest.mark.parametrize("folder", ["", "shared"])
def test_on_one_machine_the_next_takes_over_at_once(start: Start, tmp_path: Path, folder: str) -> None:
    log = tmp_path / "log"
    first = start("", 60, folder=folder)
    _until(log, "has", first)
    second = start("", 0, folder=folder)
    _until(log, f"waits-for-{first.pid}", second)
    assert leases.holder(_KEY).startswith(f"process {first.pid} on {processes.host()}, at work on it for ")
    first.kill()
    killed = time.monotonic()
    assert _until(log, "leaves", second) - killed < 20  # not a minute
    assert leases.holder(_KEY) == ""


def test_elsewhere_it_takes_over_once_nothing_is_heard(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = start("there", 60, expiry=_SECONDS)
    _until(log, "has", first)
    second = start("here", 0, expiry=_SECONDS)
    waits = _until(log, f"waits-for-{first.pid}", second)
    time.sleep(2 * _SECONDS)
    assert [line for line in _lines(log) if line[0] == "has"][1:] == [], "it lives, and gives signs of it"
    assert first.pid
    os.kill(first.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    assert _until(log, "has", second) - stopped > _SECONDS / 2 > 0 < stopped - waits
    second.join(30)
    os.kill(first.pid, signal.SIGCONT)
    _until(log, "lost", first)


def test_what_could_not_be_given_back_keeps_nobody_waiting(
    tracked_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no room is left")

    with monkeypatch.context() as disk, lease(_KEY, lambda *_: None):
        disk.setattr("mlflow.tracking.MlflowClient.delete_experiment_tag", full)
    begun = time.monotonic()
    with lease(_KEY, lambda *_: None):
        assert time.monotonic() - begun < _SECONDS


def test_what_the_dead_left_is_dropped(tracked_folder: Path) -> None:
    of = mlflow_runs.store_experiment()
    living = {**processes.owner()}
    dead = {**living, "sign": "", "started": "long ago"}
    elsewhere = {**dead, "namespace": "another machine"}
    for name, owner in {"living": living, "dead": dead, "elsewhere": elsewhere}.items():
        ticket = {"number": 1, "beat": 0, "seconds": 1.0, "owner": owner}
        client().set_experiment_tag(of, f"prorec.lease.{_KEY}.{name}", json.dumps(ticket))
    client().set_experiment_tag(of, f"prorec.lease.{_KEY}.odd", "no ticket")
    leases.drop_dead()
    assert {tag.rpartition(".")[2] for tag in leases._tags()} == {"living", "elsewhere"}
