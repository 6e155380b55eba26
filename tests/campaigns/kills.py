"""Kills at random moments of a tiny pipeline, at every stage: whatever was killed, the next run goes on, and in the end
all is as if nothing had been.

Knows stages, signals and digests. The pipeline is the real one, with MLflow on SQLite and a Prefect server; each try is
a fork of one process that has imported all, so that a kill costs seconds.

    python -m tests.campaigns.kills --seconds 3600 --seed 0

kills until the time is up, finishes its round and prints its figures as JSON. Exit status 1 if a round went wrong: a
run that failed after a kill, other digests than undisturbed, a run left RUNNING, files left over, or a process that was
there ten seconds after SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prorec.tasks.stages.pipeline import STAGES
from tests.tiny import tiny

EXPERIMENT = tiny(epochs=2)
BEFORE, AFTER = "before the stages", "after the stages"
PLACES = (BEFORE, *STAGES, AFTER)
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
PROMISED = 10.0
"""Seconds after SIGTERM in which a process is gone."""

_LONGEST = 120.0
_FEWEST = 0.3


@dataclass
class Kill:
    """One process that was killed: in which stage, how, how long after that began, and how long it then took to go."""

    place: str
    signal: str
    after: float
    gone: float


@dataclass
class Figures:
    """What came of a campaign."""

    kills: list[Kill] = field(default_factory=list)
    rounds: int = 0
    survived: int = 0
    failures: list[str] = field(default_factory=list)

    def table(self) -> dict[str, Any]:
        """The figures by name."""
        counted = Counter((kill.place, kill.signal) for kill in self.kills)
        names = [kind.name for kind in SIGNALS]
        terms = [kill.gone for kill in self.kills if kill.signal == signal.SIGTERM.name]
        return {
            "kills": len(self.kills),
            "survived": self.survived,
            "rounds": self.rounds,
            "by_stage": {place: {name: counted[place, name] for name in names} for place in PLACES},
            "seconds_until_gone_after_SIGTERM": {
                "median": round(statistics.median(terms), 2) if terms else None,
                "longest": round(max(terms), 2) if terms else None,
            },
            "failures": self.failures,
        }


class Child:
    """A fork at work, and what it says, line by line."""

    def __init__(self, folder: Path, work: Callable[[Callable[[str], None]], None]) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(reader)
            _be_child(folder, work, writer)
        os.close(writer)
        self._reader = reader
        self._lines: list[str] = []
        self._rest = b""

    def line(self, timeout: float) -> str | None:
        """The next line, or None if it says nothing for so long, or nothing more."""
        deadline = time.monotonic() + timeout
        while not self._lines:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reader], [], [], left)[0]:
                return None
            part = os.read(self._reader, 65536)
            if not part:
                return None
            *whole, self._rest = (self._rest + part).split(b"\n")
            self._lines += [line.decode() for line in whole]
        return self._lines.pop(0)

    def end(self, timeout: float) -> int | None:
        """Its exit status, once it ended within so many seconds; afterwards it is gone."""
        deadline = time.monotonic() + timeout
        status = None
        while status is None and time.monotonic() < deadline:
            done, code = os.waitpid(self.pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if done else None
            time.sleep(0 if done else 0.01)
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._reader)
        return status


def _be_child(folder: Path, work: Callable[[Callable[[str], None]], None], writer: int) -> None:
    """The rest of a child's life."""
    status = 1
    try:
        os.environ["PROREC_ARTIFACTS"] = str(folder)
        with (folder / "log.txt").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        work(lambda line: void(os.write(writer, f"{line}\n".encode())))
        status = 0
    except KeyboardInterrupt:
        status = 130
    except BaseException as error:
        if type(error).__name__ != "TerminationSignal":
            import traceback

            traceback.print_exc()
    finally:
        os._exit(status)


def void(_: object) -> None:
    """Nothing."""


def _run(say: Callable[[str], None]) -> None:
    """The pipeline, saying which stage begins, and at the end the digests."""
    from prorec.flows.full import prorec
    from prorec.flows.local.embedded import stop_like_ctrl_c
    from prorec.tasks.execution.events import Event, StageEnded, StageStarted, listening
    from prorec.tasks.local.stopping import stops_kept
    from prorec_core.config import Experiment

    def handle(event: Event) -> None:
        if isinstance(event, StageStarted):
            say(event.stage)
        elif isinstance(event, StageEnded) and event.ref.stage == list(STAGES)[-1]:
            say(AFTER)

    stop_like_ctrl_c()
    with listening(handle), stops_kept():
        summary = prorec(experiment=Experiment.model_validate(EXPERIMENT))
    say("digests " + " ".join(stage["digest"] for stage in summary["stages"]))


def _look(say: Callable[[str], None]) -> None:
    """What is wrong with a store after a round, a line each."""
    from uuid import UUID

    from prefect.client.orchestration import get_client

    from prorec.tasks.local import paths
    from prorec.tasks.tracking import mlflow_runs, store

    runs = list(mlflow_runs.search(""))
    for run in runs:
        if run.info.status not in {"FINISHED", "FAILED", "KILLED"}:
            say(f"MLflow run {run.info.run_name} is left {run.info.status}")
    with get_client(sync_client=True) as prefect:
        for each in {run.data.tags["prefect.flow_run_id"] for run in runs}:
            state = prefect.read_flow_run(UUID(each)).state
            if state is None or not state.is_final():
                say(f"flow run {each} is left {state.type.value if state else 'without a state'}")
    for problem in store.verify_all()[1]:
        say(problem)
    for name in ("work", "checkpoints"):
        for path in (paths.artifacts() / name).rglob("*"):
            say(f"{path} is left over")


class Campaign:
    """Rounds of kills in folders of their own below one folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.figures = Figures()
        self._draw = random.Random(seed)
        self._empty = folder / "empty.db"
        self._seconds: dict[str, float] = {}
        self._digests = ""

    def prepare(self) -> None:
        """Make the empty database, and run once undisturbed."""
        from mlflow import MlflowClient

        MlflowClient(tracking_uri=f"sqlite:///{self._empty}").search_experiments()
        child = Child(self._fresh("undisturbed"), _run)
        begun, place = time.monotonic(), BEFORE
        while (line := child.line(_LONGEST)) is not None:
            now = time.monotonic()
            self._seconds[place] = now - begun
            begun, place = now, line
            if line.startswith("digests "):
                self._digests = line
        if child.end(_LONGEST) != 0 or not self._digests:
            raise RuntimeError(f"the undisturbed run failed: {self._log('undisturbed')}")

    def round(
        self, plan: Sequence[tuple[str, signal.Signals]], until: float = float("inf"), share: float = 1.0
    ) -> Path:
        """Kill a run in each place of a plan, in this order, while there is time; then let it go to its end.

        A kill comes within this share of the time that the place took the run that nobody disturbed.
        """
        name = f"round-{self.figures.rounds + 1}"
        folder = self._fresh(name)
        kills: list[Kill] = []
        problems: list[str] = []
        for place, kind in plan:
            if problems or time.monotonic() > until:
                break
            problems += self._kill(folder, place, kind, kills, share)
        if not problems:
            problems += self._finish(folder)
        self.figures.rounds += 1
        self.figures.kills += kills
        if problems:
            self.figures.failures += [f"{name} after {len(kills)} kills: {problem}" for problem in problems]
        else:
            self.figures.survived += len(kills)
        return folder

    def plan(self) -> Iterator[tuple[str, signal.Signals]]:
        """One kill or two in each place, each of either kind."""
        for place in PLACES:
            for _ in range(self._draw.randint(1, 2)):
                yield place, self._draw.choice(SIGNALS)

    def _fresh(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        shutil.copyfile(self._empty, folder / "mlflow.db")
        return folder

    def _kill(self, folder: Path, place: str, kind: signal.Signals, kills: list[Kill], share: float) -> list[str]:
        after = self._draw.uniform(0, max(self._seconds.get(place, 0.0), _FEWEST)) * share
        child, here = Child(folder, _run), BEFORE
        begun = time.monotonic()
        while here != place:
            line = child.line(_LONGEST)
            if line is None or line.startswith("digests "):
                break
            begun, here = time.monotonic(), line
        while (left := begun + after - time.monotonic()) > 0 and (line := child.line(left)) is not None:
            here = here if line.startswith("digests ") else line
        asked = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, kind)
        status = child.end(PROMISED + 5)
        gone = time.monotonic() - asked
        if status == 0:
            return []  # It was done before.
        if status == 1:
            return [f"a run that was killed in {place} failed: {self._log(folder.name)}"]
        kills.append(Kill(here, kind.name, round(asked - begun, 3), round(gone, 3)))
        if status is None or gone > PROMISED:
            return [f"a process was there {gone:.1f} s after {kind.name} in {here}"]
        return []

    def _finish(self, folder: Path) -> list[str]:
        child, digests = Child(folder, _run), ""
        while (line := child.line(_LONGEST)) is not None:
            digests = line
        if child.end(_LONGEST) != 0:
            return [f"the run after the kills failed: {self._log(folder.name)}"]
        problems = [] if digests == self._digests else ["other digests than undisturbed"]
        child = Child(folder, _look)
        while (line := child.line(_LONGEST)) is not None:
            problems.append(line)
        return problems if child.end(_LONGEST) == 0 else [f"the store cannot be read: {self._log(folder.name)}"]

    def _log(self, name: str) -> str:
        lines = (self.folder / name / "log.txt").read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])


@contextlib.contextmanager
def campaign(folder: Path, seed: int) -> Iterator[Campaign]:
    """One that is prepared, with a Prefect server of its own unless `PREFECT_API_URL` names one."""
    os.environ["PROREC_ARTIFACTS"] = str(folder / "server")
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from prorec.flows.local.embedded import start_prefect

    ready = start_prefect()
    # What every child needs, and no thread yet.
    import matplotlib.pyplot  # noqa: F401
    import sentence_transformers  # noqa: F401

    import prorec.flows.full  # noqa: F401

    ready()
    found = Campaign(folder, seed)
    found.prepare()
    yield found


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill for as long as is asked for; or once in each place, for the tests."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.kills", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--once", action="store_true", help="one round, one kill in each place, both kinds in turn")
    parser.add_argument("--folder", type=Path, help="keep what the rounds leave here")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="prorec-kills-") as scratch:
        folder = (given.folder or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        with campaign(folder, given.seed) as found:
            if given.once:
                found.round([(place, SIGNALS[number % 2]) for number, place in enumerate(PLACES)], share=0.5)
            until = time.monotonic() + (0 if given.once else given.seconds)
            while time.monotonic() < until:
                done = found.round(list(found.plan()), until)
                if not found.figures.failures and given.folder is None:
                    shutil.rmtree(done)
                print(f"{found.figures.survived} of {len(found.figures.kills)} kills survived", file=sys.stderr)
            print(json.dumps(found.figures.table(), indent=1))
    sys.exit(bool(found.figures.failures))


if __name__ == "__main__":
    main()
