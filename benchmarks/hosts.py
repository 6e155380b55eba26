"""What is lost in the middle of work by several machines, and what becomes of it: `python -m benchmarks.hosts`.

Knows hosts in network namespaces (`benchmarks.namespaces`: Linux, root), `prorec` and what its stores hold. The
built-in shop, small, is trained by two workers on hosts of their own, lists are made for all its users, Stage I is
tuned in trials side by side, and a shop of more users than one process measures in one part is measured. Then the same
once more for each that can be lost, in the middle of each training (in a store of its own), of the lists, of a trial
and of the measuring: the link to a worker's host, a worker, the head of the cluster, the command. A host that was cut
off comes back once its loss was told; a command that ended is started again, the head's after its cluster was.

Ends with status 1 unless artifacts and lists are those of the undisturbed run and the trials all came to their end, no
run is left open in MLflow or Prefect, and no process and no shared memory is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.namespaces import (
    RayHosts,
    cluster_address,
    cut,
    kill,
    left,
    mend,
    network,
    processes,
    shared_memory,
    within,
)

LOSSES = ("link", "worker", "head", "command")
WORKS = ("trainings", "lists", "tuning", "evaluation")
TRAININGS = ("train_collaborative", "align", "train_generator")
SHOP = {
    "data.demo.users": 300,
    "data.demo.items": 150,
    **{
        f"{section}.{name}": 30
        for section in ("collaborative", "align", "generator")
        for name in ("epochs", "patience")
    },
}
MANY = {
    "data.demo.users": 50_500,
    "data.demo.items": 200,
    **{f"{section}.epochs": 1 for section in ("collaborative", "align", "generator")},
}
"""Two parts of users for validation and two for the test."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_memory_monitor_refresh_ms": "0"}
"""Each host would take all that runs on the machine for its own, and end workers for it."""
MODEL = "models:/prorec-demo/1"
_WORKERS = ("TrainWorker", "ray::_Worker", "ray::_Relay")
"""Of how Ray names the processes that do the work."""
_IN_THE_MIDDLE = {"recommend": 1, "evaluate": 1, "trial 2": 1}
"""Lines of progress after which something is lost, by stage or trial; 2 of any other. Lists have few, and those of
trials stand between each other's."""
_SECONDS_OF_SILENCE = 600.0
_SECONDS_TO_END = 90.0
"""In which a command without a head ends, and workers without a command."""
_ENDED = {"FINISHED", "FAILED", "KILLED", "COMPLETED", "CRASHED", "CANCELLED", "CACHED"}
_PROGRESS = re.compile(r"(trial \d+|\w+): (?:\w+: )?(?:epoch|user) \d+/\d+")
_TOLD = re.compile(r"\w+: a worker |trial \d+: its process died")
_TRIALS = 4
_COMMANDS = 6
"""Given at most; each loss takes one more."""


@dataclass
class Loss:
    """One of them: in which stage, and after how many seconds it was told and the work went on."""

    stage: str
    at: float
    told: str = ""
    seconds_until_told: float | None = None
    seconds_until_it_went_on: float | None = None
    seconds_until_nothing_worked: float | None = None

    def shown(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "at" and value not in (None, "")}


@dataclass
class Story:
    """A piece of work whose command is given as often as it takes, while things are lost.

    Attributes:
        words: of the command, after `prorec`.
        environment: of it and of Ray.
        lost: what is lost, of `LOSSES`; empty: nothing.
        stages: in which that happens, one after the other; a trial by its name.
    """

    words: Sequence[str]
    environment: Mapping[str, str]
    lost: str = ""
    stages: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    commands: int = 0
    problems: list[str] = field(default_factory=list)

    def run(self, folder: Path) -> None:
        """Have it be done by the workers of a cluster, whatever is lost."""
        with network():
            while True:
                with RayHosts(self.environment, folder / "ray") as hosts:
                    again = self._commands(hosts)
                if not again:
                    return

    def _commands(self, hosts: RayHosts) -> bool:
        """Give the command until it ends well, which returns False, or with its cluster, which returns True."""
        while True:
            if self.commands == _COMMANDS:
                self.problems.append(f"it did not end well in {_COMMANDS} commands")
                return False
            self.commands += 1
            status = self._command(hosts)
            if status == 0:
                if self.stages:
                    self.problems.append(f"it ended before {self.stages[0]} lost the {self.lost}")
                return False
            if self.lost == "head" and status > 0 and self.losses:
                return True
            if self.lost != "command" or status != -signal.SIGKILL:
                self.problems.append(f"the command ended with status {status}")
                return False

    def _command(self, hosts: RayHosts) -> int:
        command = [sys.executable, "-m", "prorec", *self.words]
        on = ["--set", "compute.engine=ray", "--set", f"compute.address={cluster_address()}"]
        process = subprocess.Popen(
            within("head", *command, *on),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        seen, now, came_back = 0, self._new(), threading.Thread()
        for line in _lines(process):
            told = line.rstrip()
            print(told, file=sys.stderr, flush=True)
            open_loss = self.losses[-1] if self.losses else None
            if open_loss and open_loss.seconds_until_told is None and _TOLD.match(told):
                open_loss.told, open_loss.seconds_until_told = told[:300], round(time.monotonic() - open_loss.at, 1)
                if self.lost == "link":
                    came_back = threading.Thread(target=_bring_back, args=(hosts,))
                    came_back.start()
            if not (found := _PROGRESS.match(told)):
                continue
            if open_loss and open_loss.seconds_until_told and open_loss.seconds_until_it_went_on is None:
                open_loss.seconds_until_it_went_on = round(time.monotonic() - open_loss.at, 1)
            seen = seen + 1 if self.stages and found[1] == self.stages[0] else 0
            if self.stages and seen == _IN_THE_MIDDLE.get(self.stages[0], 2):
                now = self._lose(process)
        status = process.wait()
        if came_back.ident is not None:
            came_back.join()
        if self.lost in ("head", "command") and status:
            self._expect_end(now)
        return status

    def _new(self) -> Loss:
        return Loss("", time.monotonic())

    def _lose(self, process: subprocess.Popen[str]) -> Loss:
        loss = Loss(self.stages.pop(0), time.monotonic())
        self.losses.append(loss)
        print(f"{loss.stage}: the {self.lost} is lost", file=sys.stderr, flush=True)
        match self.lost:
            case "link":
                cut("second")
            case "worker":
                found = [pid for name in _WORKERS for pid in kill("second", name)]
                if not found:
                    self.problems.append(f"{loss.stage}: there was no worker: {sorted(processes('second').values())}")
            case "head":
                kill("head", "gcs_server")
                kill("head", "raylet")
            case "command":
                process.kill()
        return loss

    def _expect_end(self, loss: Loss) -> None:
        """Wait until no worker is at work for a command that is gone."""
        loss.seconds_until_told = loss.seconds_until_told or round(time.monotonic() - loss.at, 1)
        while working := [name for host in ("first", "second") for name in processes(host).values() if _works(name)]:
            if time.monotonic() - loss.at > loss.seconds_until_told + _SECONDS_TO_END:
                self.problems.append(f"{loss.stage}: still at work without a command: {working}")
                return
            time.sleep(0.5)
        loss.seconds_until_nothing_worked = round(time.monotonic() - loss.at, 1)


def _works(name: str) -> bool:
    return any(each in name for each in _WORKERS)


def _lines(process: subprocess.Popen[str]) -> Any:
    """What a command says; it is ended where it says nothing for long."""
    assert process.stdout is not None
    heard = threading.Event()

    def watch() -> None:
        while heard.wait(_SECONDS_OF_SILENCE):
            heard.clear()
        process.kill()

    threading.Thread(target=watch, daemon=True).start()
    for line in process.stdout:
        heard.set()
        yield line


def _bring_back(hosts: RayHosts) -> None:
    mend("second")
    hosts.start("second")
    print("second is back", file=sys.stderr, flush=True)


def left_open(store: Path) -> list[str]:
    """Runs that MLflow or Prefect hold to be at work."""
    found = []
    for file, table, column in ((store / "mlflow.db", "runs", "status"), (store / "prefect", "flow_run", "state_type")):
        for database in [file] if file.is_file() else sorted(file.glob("*.db")):
            with sqlite3.connect(database) as opened:
                found += [
                    f"{database.name}: a run is {status}"
                    for (status,) in opened.execute(f"SELECT {column} FROM {table}")
                    if status not in _ENDED
                ]
    return found


def digests(output: Path, *names: str) -> str:
    """Of what a run made, stage by stage, or of some stages alone."""
    stages = json.loads(output.read_text())["stages"]
    # The last one holds what was measured of the run itself.
    return " ".join(each["digest"] for each in stages if (each["name"] in names if names else each["name"] != "report"))


def _set(numbers: Mapping[str, int]) -> list[str]:
    return [word for key, number in numbers.items() for word in ("--set", f"{key}={number}")]


def tried(output: Path) -> str:
    """How many trials of a tuning came to their end, and what the first did; the others' values follow who is first."""
    trials = json.loads(output.read_text())["trials"]
    complete = [each for each in trials if each["state"] == "complete"]
    return f"{len(complete)} {next((each['value'] for each in complete if each['trial'] == 1), 'without the first')}"


def main() -> None:
    """Run it, and print what was seen as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hosts", description=__doc__)
    parser.add_argument("--lose", choices=LOSSES, nargs="*", default=list(LOSSES))
    parser.add_argument("--of", choices=WORKS, nargs="+", default=list(WORKS))
    parser.add_argument("--chunk", default="10", help="users of a chunk of the lists")
    given = parser.parse_args()
    # Whoever ends this wants the network to be gone, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    mark = f"PROREC_HOSTS={secrets.token_hex(8)}"
    name, _, value = mark.partition("=")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, **QUIET, **token, name: value}
    seen: dict[str, Any] = {}
    before, problems = shared_memory(), list[str]()
    # Short: the names of the sockets in it may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="prorec-hosts-", dir="/tmp") as scratch:
        folder = Path(scratch)

        def tell(case: str, made: str, of: Mapping[str, Any]) -> None:
            seen[case] = {"made": hashlib.sha256(made.encode()).hexdigest()[:16], **of}
            print(f"{case}: {json.dumps(seen[case])}", file=sys.stderr, flush=True)

        def story(case: str, words: Sequence[str], store: Path, made: Callable[[], str], **of: Any) -> str:
            begun = time.monotonic()
            one = Story(words, {**environment, "PROREC_ARTIFACTS": str(store)}, **of)
            one.run(folder)
            open_ = left_open(store)
            problems.extend(f"{case}: {each}" for each in one.problems + open_)
            found = made() if not one.problems else ""
            seconds = round(time.monotonic() - begun, 1)
            tell(case, found, {"commands": one.commands, "seconds": seconds, "losses": [x.shown() for x in one.losses]})
            return found

        def alone(*words: str, store: str) -> None:
            own = {**environment, "PROREC_ARTIFACTS": str(folder / store), "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, "-m", "prorec", *words], env=own, check=True, stdout=sys.stderr)

        def trainings(lost: str) -> str:
            output = folder / f"trained-{lost}.json"
            words = ["run", "demo", "--json", str(output), *_set(SHOP)]
            stages = list(TRAININGS) if lost else []
            return story(
                f"trainings, {lost or 'nothing'} lost",
                words,
                folder / f"store-{lost}",
                lambda: digests(output),
                lost=lost,
                stages=stages,
            )

        def listed(output: Path) -> list[str]:
            words = ["recommend-all", "--model", MODEL, "--chunk", given.chunk, "--explain"]
            return [*words, "--output", str(output)]

        def lists(lost: str) -> str:
            output = folder / f"lists-{lost}.parquet"
            return story(
                f"lists, {lost or 'nothing'} lost",
                listed(output),
                folder / "store-",
                lambda: hashlib.sha256(output.read_bytes()).hexdigest(),
                lost=lost,
                stages=["recommend"] if lost else [],
            )

        def tuning(lost: str) -> str:
            output = folder / f"tuned-{lost}.json"
            words = ["tune", "demo", "--trials", str(_TRIALS), "--parallel", "2", "--no-prune", *_set(SHOP)]
            # Each trial in a process of its own, on one host.
            words += ["--set", "compute.workers=1"]
            return story(
                f"tuning, {lost or 'nothing'} lost",
                [*words, "--json", str(output)],
                folder / f"tuned-{lost}",
                lambda: tried(output),
                lost=lost,
                stages=["trial 2"] if lost else [],
            )

        def evaluation(lost: str) -> str:
            output = folder / f"evaluated-{lost}.json"
            return story(
                f"evaluation, {lost or 'nothing'} lost",
                ["run", "demo", "--force", "evaluate", "--json", str(output), *_set(MANY)],
                folder / "many",
                lambda: digests(output, "evaluate"),
                lost=lost,
                stages=["evaluate"] if lost else [],
            )

        wanted: dict[str, str] = {}
        if {"trainings", "lists"} & set(given.of):
            wanted["trainings"] = trainings("")
        if problems:
            raise SystemExit("\n".join(problems))
        if "lists" in given.of:
            output = folder / "lists.parquet"
            alone(*listed(output), store="store-")
            wanted["lists"] = hashlib.sha256(output.read_bytes()).hexdigest()
            tell("lists, one process", wanted["lists"], {})
        if "tuning" in given.of:
            wanted["tuning"] = tuning("")
            if not wanted["tuning"].startswith(f"{_TRIALS} "):
                problems.append(
                    f"tuning: {wanted['tuning'] or 'none'} instead of {_TRIALS} trials that came to their end"
                )
        if "evaluation" in given.of:
            output = folder / "evaluated.json"
            alone("run", "demo", "--json", str(output), *_set(MANY), store="many")
            wanted["evaluation"] = digests(output, "evaluate")
            tell("evaluation, one process", wanted["evaluation"], {})
        # Where one process did the work first, so do workers from whom nothing is lost.
        undisturbed = {"lists": [""], "evaluation": [""]}
        for work, make in zip(WORKS, (trainings, lists, tuning, evaluation), strict=True):
            for lost in [*undisturbed.get(work, []), *given.lose] if work in given.of else []:
                if make(lost) != wanted[work]:
                    problems.append(f"{work}, {lost or 'nothing'} lost: other ones than undisturbed")
    problems += [f"a process is left: {each}" for each in left(mark)]
    problems += [f"shared memory is left: {each}" for each in sorted(shared_memory() - before)]
    print(json.dumps({**seen, "problems": problems}, indent=2))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
