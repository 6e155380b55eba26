"""Who does a piece of work: one process at a time, whatever dies, with real processes on one store."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from prorec.tasks.local import processes
from prorec.tasks.tracking import leases, mlflow_runs
from prorec.tasks.tracking.leases import lease
from prorec.tasks.tracking.mlflow_runs import client
from tests.leasing import KEY, Wanting, wanting

_SECONDS = 3.0


@pytest.fixture
def wants(tracked_folder: Path, tmp_path: Path) -> Iterator[Wanting]:
    """Processes that want the work of the test's store."""
    with wanting(tmp_path) as found:
        yield found


def test_one_at_a_time_and_nothing_is_left(wants: Wanting) -> None:
    wants.expect_turns(machines=3, rounds=3)


@pytest.mark.parametrize("folder", ["", "shared"])
def test_on_one_machine_the_next_takes_over_at_once(wants: Wanting, folder: str) -> None:
    first = wants.begin("", 60, folder=folder)
    wants.until("has", first)
    second = wants.begin("", 0, folder=folder)
    wants.until(f"waits-for-{first.pid}", second)
    assert leases.holder(KEY).startswith(f"process {first.pid} on {processes.host()}, at work on it for ")
    first.kill()
    killed = time.monotonic()
    assert wants.until("leaves", second) - killed < 20  # not a minute
    second.join(30)
    assert leases.holder(KEY) == ""


def test_elsewhere_it_takes_over_once_nothing_is_heard(wants: Wanting, tracked_folder: Path) -> None:
    first = wants.begin("there", 60, expiry=_SECONDS, clock=-1e6)
    wants.until("has", first)
    second = wants.begin("here", 0, expiry=_SECONDS, clock=1e6)
    waits = wants.until(f"waits-for-{first.pid}", second)
    time.sleep(2 * _SECONDS)
    assert [line for line in wants.lines() if line[0] == "has"][1:] == [], "it lives, and gives signs of it"
    assert first.pid
    _stop_between_writes(first.pid, tracked_folder / "mlflow.db")
    stopped = time.monotonic()
    assert wants.until("has", second) - stopped > _SECONDS / 2 > 0 < stopped - waits
    second.join(30)
    os.kill(first.pid, signal.SIGCONT)
    wants.until("lost", first)


def _stop_between_writes(pid: int, database: Path) -> None:
    """Stop a process where it does not hold the database, which would keep everybody from it."""
    assert database.is_file()
    for _ in range(100):
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)
                continue
            connection.execute("ROLLBACK")
            return
    raise AssertionError("it held the database whenever it was stopped")


def test_what_could_not_be_given_back_keeps_nobody_waiting(
    tracked_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no room is left")

    with monkeypatch.context() as disk, lease(KEY, lambda *_: None):
        disk.setattr("mlflow.tracking.MlflowClient.delete_experiment_tag", full)
    begun = time.monotonic()
    with lease(KEY, lambda *_: None):
        assert time.monotonic() - begun < 30  # not a minute


def test_what_the_dead_left_is_dropped(tracked_folder: Path) -> None:
    of = mlflow_runs.store_experiment()
    living = {**processes.owner()}
    dead = {**living, "sign": "", "started": "long ago"}
    elsewhere = {**dead, "namespace": "another machine"}
    for name, owner in {"living": living, "dead": dead, "elsewhere": elsewhere}.items():
        ticket = {"number": 1, "beat": 0, "seconds": 1.0, "owner": owner}
        client().set_experiment_tag(of, f"prorec.lease.{KEY}.{name}", json.dumps(ticket))
    client().set_experiment_tag(of, f"prorec.lease.{KEY}.odd", "no ticket")
    leases.drop_dead()
    assert {tag.rpartition(".")[2] for tag in leases._tags()} == {"living", "elsewhere"}
