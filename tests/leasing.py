"""Real processes that want one piece of work of a tracking store, each as if on a machine of its own or on this one.

Knows leases and processes; knows nothing of the store, nor of what is expected of it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from prorec.tasks.local import paths, processes
from prorec.tasks.tracking import leases, mlflow_runs
from prorec.tasks.tracking.leases import LeaseLostError, lease

KEY = "a" * 64
_CARRIED = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


class Wanting:
    """Begins processes that want the work, and reads what became of them."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: for the log and for each process's folder of artifacts.
        """
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["mlflow", leases.__name__])
        self.begun: list[BaseProcess] = []

    def begin(
        self,
        machine: str,
        seconds: float,
        rounds: int = 1,
        expiry: float = 60.0,
        folder: str = "",
        clock: float = 0.0,
    ) -> BaseProcess:
        """Begin one that has the work some times, for some seconds each.

        Args:
            machine: where it seems to be; empty: here.
            seconds: for which it has the work.
            rounds: how often.
            expiry: seconds after which it takes silence for death.
            folder: a name shared with others on one machine; empty: one of its own.
            clock: seconds by which its machine's clocks, of the day and since its start, are off.
        """
        place = self._folder / (folder or f"folder-{len(self.begun)}")
        environment = {name: os.environ[name] for name in _CARRIED if name in os.environ}
        environment |= {"MLFLOW_TRACKING_URI": paths.tracking_uri(), "PROREC_ARTIFACTS": str(place)}
        environment[leases.EXPIRY_VARIABLE] = str(expiry)
        words = (environment, machine, self._folder / "log", seconds, rounds, clock)
        self.begun.append(self._context.Process(target=_work, args=words))
        self.begun[-1].start()
        return self.begun[-1]

    def lines(self) -> list[list[str]]:
        """What happened, to which process, and when by the monotonic clock."""
        log = self._folder / "log"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    def until(self, what: str, of: BaseProcess) -> float:
        """Wait until something happened to a process; returns when."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for kind, pid, when in self.lines():
                if kind == what and int(pid) == of.pid:
                    return float(when)
            time.sleep(0.02)
        raise AssertionError(f"{what} did not happen: {self.lines()}")

    def expect_turns(self, machines: int, rounds: int) -> None:
        """Have so many machines do the work so often: one at a time, and nothing of it is left."""
        for each in [self.begin(f"machine-{number}", 0.05, rounds) for number in range(machines)]:
            each.join(60)
            assert each.exitcode == 0
        happened = [(kind, pid) for kind, pid, _ in self.lines() if kind in {"has", "leaves"}]
        assert len(happened) == 2 * machines * rounds
        turns = zip(happened[::2], happened[1::2], strict=True)
        assert all(first == ("has", pid) and left == "leaves" for first, (left, pid) in turns)
        assert leases._tags() == {}


@contextmanager
def wanting(folder: Path) -> Iterator[Wanting]:
    """Processes that are gone with the context."""
    _ = mlflow_runs.client(), mlflow_runs.store_experiment()
    found = Wanting(folder)
    try:
        yield found
    finally:
        for each in found.begun:
            each.kill()
            each.join()


def _off_by(seconds: float, clock: Callable[[], float]) -> float:
    return clock() + seconds


def _work(environment: dict[str, str], machine: str, log: Path, seconds: float, rounds: int, clock: float) -> None:
    os.environ.update(environment)
    true = time.monotonic
    for name in ("time", "monotonic"):
        setattr(time, name, partial(_off_by, clock, getattr(time, name)))
    if machine:
        processes._namespace = lambda: machine  # type: ignore[assignment]

    def note(what: str) -> None:
        with log.open("a") as stream:
            stream.write(f"{what} {os.getpid()} {true()}\n")

    for _ in range(rounds):
        with lease(KEY, lambda who, _: note(f"waits-for-{who.split()[1]}")) as mine:
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
