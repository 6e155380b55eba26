"""First starts, starts of the stack and upgrades of the tables, each killed at a moment that a seed chooses.

`python -m tests.campaigns.first_start --seconds 3600 --seed 0` prints what was tried and what was found as JSON, and
ends with status 1 if a database was half made, or if the same command did not go on. Knows processes, signals and
SQLite files; what is asked of a database stands in `is_whole`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prorec.tasks.local import databases, paths
from prorec.tasks.local.databases import MLFLOW, PREFECT, Tables
from tests.tiny import tiny_words

OPEN = "from prorec.tasks.tracking.mlflow_runs import client; client().search_experiments()"
"""Opens the tracking store, and makes its tables where there are none."""

START = """
from prorec.flows.local.embedded import start_prefect, stop_like_ctrl_c
stop_like_ctrl_c()
ready = start_prefect()
from prorec.tasks.tracking.mlflow_runs import client
client()
ready()
"""
"""What every run does before its first stage."""

_RUN = ["-m", "prorec", "run", "demo", *tiny_words()]
_UP = ["-m", "prorec", "up"]
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_EXPERIMENTS, _OLDER = 200, 4
_IN_A_ROW = 4
_SECONDS_TO_END, _SECONDS_TO_START = 60.0, 200.0


def is_whole(path: Path, tables: Tables) -> bool:
    """Whether a database has all tables of this version, and SQLite finds nothing wrong with it."""
    return not databases.problems(path) and _revision(path) == tables.revisions()[0]


def _revision(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as database:
        return databases.state(database)[0]


def make_older(path: Path, back: int, experiments: Mapping[int, str]) -> None:
    """MLflow's tables as so many migrations ago, in a file that is not there yet, with experiments by number."""
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = utils.create_sqlalchemy_engine(paths.sqlite_uri(path))
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config("")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, MLFLOW.revisions()[back])
    engine.dispose()
    with closing(sqlite3.connect(path)) as database:
        database.executemany(
            "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (?, ?, 'active')",
            experiments.items(),
        )
        database.commit()


@dataclass
class Tally:
    """What was tried with one kind of start.

    Attributes:
        kills: how many, by signal.
        found: how many databases were left in which state.
        went_on: how often the same folder was then started in without a kill.
        failures: what must not be, with the folder's number.
    """

    kills: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    went_on: int = 0
    failures: list[str] = field(default_factory=list)


def _environment(folder: Path) -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    chosen = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_"))}
    quiet = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**chosen, **quiet, "PROREC_ARTIFACTS": str(folder), "PYTHONPATH": path}


@contextmanager
def _started(words: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *words],
            env=_environment(folder),
            stdout=log,
            stderr=log,
            start_new_session=True,
            # A shell's background job hands on that interruptions are ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(condition: Callable[[], object], seconds: float, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def _kill(words: list[str], folder: Path, chance: random.Random, tally: Tally) -> None:
    """Start, wait for a moment, send a signal, and wait for the end."""
    kind = chance.choice(_SIGNALS)
    with _started(words, folder) as process:
        if chance.random() < 0.7:
            part = ".mlflow.db.part*" if words[0] == "-c" else chance.choice([".mlflow.db.part*", ".prefect.db.part*"])
            _wait(lambda: any(folder.rglob(part)), 30.0, process)
            time.sleep(chance.uniform(0, 4.0) ** 2 / 4)
        else:
            time.sleep(chance.uniform(0.5, 20.0))
        if process.poll() is None:
            tally.kills[kind.name] += 1
            process.send_signal(kind)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
        if process.poll() is None:
            tally.failures.append(f"{folder.name}: {kind.name} did not end it in {_SECONDS_TO_END:.0f} s")


def _look(folder: Path, tally: Tally, old: str = "") -> None:
    """Say what is left of both databases once the processes that were left have ended by themselves."""
    for path, tables in ((folder / "mlflow.db", MLFLOW), (folder / "prefect" / "prefect.db", PREFECT)):
        if not path.exists():
            tally.found["not there"] += 1
        elif is_whole(path, tables):
            tally.found["whole"] += 1
        elif old and tables is MLFLOW and _revision(path) == old and not databases.problems(path):
            tally.found["as before"] += 1
        else:
            tally.found["half made"] += 1
            tally.failures.append(f"{folder.name}: {path.name} is half made")


def _go_on(script: str, folder: Path, tally: Tally) -> None:
    with _started(["-c", script], folder) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_START)
        if process.returncode != 0:
            tally.failures.append(f"{folder.name}: the next start ended with {process.returncode}")
    tally.went_on += 1
    _look(folder, tally)
    if left := [str(each.relative_to(folder)) for each in folder.rglob(".*.part*")]:
        tally.failures.append(f"{folder.name}: {left} was left")


def first_runs(folder: Path, chance: random.Random, tally: Tally) -> None:
    """`prorec run` in an empty folder, killed a few times in a row; then what every run begins with."""
    for _ in range(chance.randint(1, _IN_A_ROW)):
        _kill(_RUN, folder, chance, tally)
        # The server ends with its starter, and whatever it is at it ends within five seconds.
        time.sleep(6.0)
        _look(folder, tally)
    _go_on(START, folder, tally)


def first_looks(folder: Path, chance: random.Random, tally: Tally) -> None:
    """The tracking store opened in an empty folder, as `prorec artifacts list` and its like do; killed in a row."""
    for _ in range(chance.randint(1, _IN_A_ROW)):
        _kill(["-c", OPEN], folder, chance, tally)
        _look(folder, tally)
    _go_on(OPEN, folder, tally)


def first_stacks(folder: Path, chance: random.Random, tally: Tally) -> None:
    """`prorec up` in an empty folder, killed; `prorec down` ends what it left."""
    _kill(_UP, folder, chance, tally)
    with _started(["-m", "prorec", "down"], folder) as down:
        down.wait(_SECONDS_TO_START)
    _look(folder, tally)
    _go_on(START, folder, tally)


def upgrades(folder: Path, chance: random.Random, tally: Tally) -> None:
    """The tables of an earlier version with experiments in them, brought up to date, and killed meanwhile."""
    path, old = folder / "mlflow.db", MLFLOW.revisions()[_OLDER]
    older = folder.parent / "older.db"
    if not older.exists():
        make_older(older, _OLDER, {number: f"prorec-{number}" for number in range(1, _EXPERIMENTS + 1)})
    shutil.copyfile(older, path)
    for _ in range(_IN_A_ROW):
        _kill(["-c", OPEN], folder, chance, tally)
        _look(folder, tally, old)
        if _revision(path) != old:
            break
    _go_on(OPEN, folder, tally)
    with closing(sqlite3.connect(path)) as database:
        (count,) = database.execute("SELECT count(*) FROM experiments WHERE name LIKE 'prorec-%'").fetchone()
    if count != _EXPERIMENTS:
        tally.failures.append(f"{folder.name}: {count} of {_EXPERIMENTS} experiments are left")


KINDS = {"prorec run": first_runs, "first look": first_looks, "prorec up": first_stacks, "upgrade": upgrades}


def campaign(seconds: float, seed: int, folder: Path, kinds: list[str]) -> dict[str, Tally]:
    """Try kinds of starts in turn, each in a folder of its own, until the time is over; what fails keeps its folder."""
    chance = random.Random(seed)
    tallies = {kind: Tally() for kind in kinds}
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        number += 1
        kind = kinds[number % len(kinds)]
        own = folder / f"{number:04d}"
        own.mkdir(parents=True)
        before = len(tallies[kind].failures)
        KINDS[kind](own, chance, tallies[kind])
        if len(tallies[kind].failures) == before:
            shutil.rmtree(own, ignore_errors=True)
    return tallies


def main() -> None:
    """Run the campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="one kind alone; may be given again")
    chosen = parser.parse_args()
    # What it started ends with it, also where a shell had interruptions ignored.
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: sys.exit("Stopped."))
    folder = Path(tempfile.mkdtemp(prefix="prorec-first-start-"))
    tallies = campaign(chosen.seconds, chosen.seed, folder, chosen.kind or list(KINDS))
    print(json.dumps({kind: vars(tally) for kind, tally in tallies.items()}, indent=1))
    if any(tally.failures for tally in tallies.values()):
        print(f"The folders of what failed, and all logs, are in {folder}.", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
