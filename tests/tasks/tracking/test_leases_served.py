"""Who does a piece of work, on a real PostgreSQL and over HTTP: one store, reached in both ways by real processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from prorec.tasks.tracking import leases
from tests.tasks.tracking.test_leases import _lines, _until, _work

_SECONDS = 3.0
_EXPIRY = 6.0
_PLACES = [*Path("/usr/lib/postgresql").glob("*/bin"), *(Path(each) for each in os.environ["PATH"].split(os.pathsep))]
PROGRAMS = max((place for place in _PLACES if (place / "initdb").is_file()), default=None)
pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed (Debian: postgresql)"),
]
Start = Callable[..., BaseProcess]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _skewed(clock: float, *words: Any) -> None:
    """The work of a process on a machine whose clocks, of the day and since its start, are off by so many seconds."""
    for name in ("time", "monotonic"):
        setattr(time, name, functools.partial(lambda true: true() + clock, getattr(time, name)))
    _work(*words)


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, str]]:
    """Addresses of one store: its database, and a tracking server before it."""
    assert PROGRAMS
    user = next((u for u in pwd.getpwall() if u.pw_name in {"postgres", "nobody"}), None) if os.getuid() == 0 else None
    options: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    running: list[subprocess.Popen[bytes]] = []
    # A folder of pytest's is for its owner alone.
    with tempfile.TemporaryDirectory(prefix="prorec-leases-") as name:
        folder, port, web = Path(name), _free_port(), _free_port()
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        initdb = [str(PROGRAMS / "initdb"), f"--pgdata={folder / 'data'}", "--no-sync", "--username=mlflow"]
        subprocess.run([*initdb, "--auth=trust"], check=True, capture_output=True, cwd="/", **options)
        settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        database = f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        at = [word for setting in settings for word in ("-c", setting)]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--workers", "1"]
        server += ["--artifacts-destination", str(folder / "files"), "--host", "127.0.0.1", "--port", str(web)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        try:
            command = [str(PROGRAMS / "postgres"), "-D", str(folder / "data"), *at]
            running.append(subprocess.Popen(command, cwd="/", **options, **quiet))
            _wait(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
            running.append(subprocess.Popen(server, env=environment, **quiet))
            _wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{web}/health", timeout=5).close())
            yield {"database": database, "http": f"http://127.0.0.1:{web}"}
        finally:
            for each in reversed(running):
                os.killpg(each.pid, 9)
                each.wait()


def _wait(reach: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            reach()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def start(
    stores: dict[str, str], artifacts_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Start a process that works: on which machine, by which address, for how long, and with which clocks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", leases.__name__])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stores["http"])
    _ = leases._tags()
    begun: list[BaseProcess] = []

    def begin(machine: str, store: str, seconds: float, rounds: int = 1, clock: float = 0.0) -> BaseProcess:
        place = tmp_path / f"folder-{len(begun)}"
        words = (clock, stores[store], place, machine, tmp_path / "log", seconds, rounds, _EXPIRY)
        begun.append(context.Process(target=_skewed, args=words))
        begun[-1].start()
        return begun[-1]

    yield begin
    for each in begun:
        each.kill()
        each.join()
    for folder in tmp_path.glob("folder-*"):
        shutil.rmtree(folder, ignore_errors=True)


def test_of_those_who_ask_at_once_one_has_it_at_a_time(start: Start, tmp_path: Path) -> None:
    for each in [start(f"machine-{n}", ("database", "http")[n % 2], 0.05, 2, 1e6 * (n - 1)) for n in range(3)]:
        each.join(90)
        assert each.exitcode == 0
    happened = [(kind, pid) for kind, pid, _ in _lines(tmp_path / "log") if kind in {"has", "leaves"}]
    assert len(happened) == 12
    for first, second in zip(happened[::2], happened[1::2], strict=True):
        assert (first[0], second[0]) == ("has", "leaves") and first[1] == second[1]
    assert leases._tags() == {}


@pytest.mark.parametrize(("owner", "other"), [("database", "http"), ("http", "http")])
def test_the_dead_owner_s_work_is_taken_over_in_time_whatever_the_clocks_say(
    start: Start, tmp_path: Path, owner: str, other: str
) -> None:
    log = tmp_path / "log"
    first = start("there", owner, 60, clock=-1e6)
    _until(log, "has", first)
    second = start("here", other, 0, clock=1e6)
    _until(log, f"waits-for-{first.pid}", second)
    time.sleep(_SECONDS)
    first.kill()
    killed = time.monotonic()
    second.join(60)
    taken = time.monotonic() - killed
    assert second.exitcode == 0
    # It stands still since its last beat, of which there are six in that time.
    assert _EXPIRY / 2 < taken < 3 * _EXPIRY
    assert leases._tags() == {}
