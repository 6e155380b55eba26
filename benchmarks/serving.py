"""Seconds that a serving process takes to answer, under a load of so many requests a second.

`python -m benchmarks.serving [--model URI] [--rate 50] [--seconds 30] [--move VERSION]` starts `prorec serve` as a
process of its own; `--url` asks one that runs already. Requests go out when they are due, whether or not earlier
ones were answered, and their seconds count from then: a server that falls behind cannot hide it.

With `--lists 5 --share 0.5` the server is given so many named lists of a random half of the catalogue each; then half
of the time no request has a rule and half of the time each names another list, in turns, so that both meet the same
machine. `--synthetic 200000` serves a model of so many items that has learnt nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from prorec_core.errors import UserError

_SECONDS_TO_START = 120
_MEAN_ITEMS, _MOST_ITEMS = 7, 50
_TURNS = 4
"""How often requests without a rule and with one take turns."""
_TOKEN = "PROREC_SERVE_TOKEN"
_MOVE = """
import sys
from prorec.tasks.tracking.mlflow_runs import client
name, alias, version = sys.argv[1:]
client().get_registered_model(name)
print("here", flush=True)
sys.stdin.readline()
client().set_registered_model_alias(name, alias, version)
"""


@dataclass
class Outcome:
    """What became of the requests; milliseconds from when each was due."""

    milliseconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    last_version: str = ""
    processor_seconds: float = 0.0
    """Of the server, in all."""
    changed_after: float | None = None
    """Seconds from the move of the alias to the first answer of another version."""

    def add(self, other: Outcome) -> None:
        """Count what became of more requests."""
        self.milliseconds += other.milliseconds
        self.errors += other.errors
        self.versions += other.versions
        self.processor_seconds += other.processor_seconds


def make_bodies(item_ids: list[str], count: int, histories: int, k: int) -> list[dict[str, Any]]:
    """Requests with random histories, 7 items long on average as in Amazon's data sets."""
    random = np.random.default_rng(0)

    def history() -> list[str]:
        length = min(_MOST_ITEMS, int(random.geometric(1 / _MEAN_ITEMS)))
        return [item_ids[item] for item in random.integers(0, len(item_ids), length)]

    return [{"histories": [{"history": history()} for _ in range(histories)], "k": k} for _ in range(count)]


def put_lists(url: str, token: str, item_ids: list[str], count: int, share: float) -> list[str]:
    """Give a server lists of a random share of the catalogue each; returns their names."""
    random, names = np.random.default_rng(1), [f"benchmark-{number}" for number in range(count)]
    with httpx.Client(base_url=url, timeout=60, trust_env=False, headers={"Authorization": f"Bearer {token}"}) as web:
        for name in names:
            some = [item_ids[item] for item in np.flatnonzero(random.random(len(item_ids)) < share)]
            web.put(f"/lists/{name}", json={"items": some or item_ids[:1]}).raise_for_status()
    return names


async def in_turns(url: str, kinds: list[list[dict[str, Any]]], rate: float) -> list[Outcome]:
    """Send several kinds of bodies, a part of each in turn, so that a slow minute of the machine meets all of them."""
    outcomes = [Outcome() for _ in kinds]
    for turn in range(_TURNS):
        for outcome, bodies in zip(outcomes, kinds, strict=True):
            outcome.add(await load(url, bodies[turn::_TURNS], rate, None))
    return outcomes


async def load(url: str, bodies: list[dict[str, Any]], rate: float, mover: subprocess.Popen[str] | None) -> Outcome:
    """Send every body when it is due; in the middle have `mover` move the alias."""
    outcome = Outcome()
    moved: float | None = None
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    token = os.environ.get(_TOKEN, "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits, trust_env=False, headers=headers) as web:

        async def ask(body: dict[str, Any], due: float) -> None:
            try:
                answer = await web.post("/recommend", json=body)
            except httpx.HTTPError as error:
                outcome.errors[type(error).__name__] += 1
                return
            now = time.perf_counter()
            if answer.status_code != 200:
                outcome.errors[str(answer.status_code)] += 1
                return
            outcome.milliseconds.append(1000 * (now - due))
            version = answer.json()["model"]["version"]
            if moved and outcome.last_version != version and outcome.changed_after is None:
                outcome.changed_after = now - moved
            outcome.last_version = version
            outcome.versions[version] += 1

        await asyncio.gather(*(ask(body, time.perf_counter()) for body in bodies[:5]))
        outcome.errors.clear()
        outcome.milliseconds.clear()
        outcome.versions.clear()
        used = await _processor_seconds(web)
        tasks = []
        start = time.perf_counter()
        for number, body in enumerate(bodies):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(body, due)))
            if mover and mover.stdin and moved is None and number >= len(bodies) // 2:
                moved = time.perf_counter()
                mover.stdin.close()
        await asyncio.gather(*tasks)
        outcome.processor_seconds = await _processor_seconds(web) - used
    return outcome


async def _processor_seconds(web: httpx.AsyncClient) -> float:
    lines = (await web.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_cpu_seconds_total "))


@contextlib.contextmanager
def running_server(model: str) -> Iterator[str]:
    """The address of a `prorec serve` of our own."""
    command = [sys.executable, "-m", "prorec", "serve", "--model", model, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if "serving" in line:
                    break
            else:
                raise SystemExit("The server did not start.")
            # A pipe that nobody reads would fill.
            with subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL):
                try:
                    yield line.split(" at ")[1].strip()
                    server.terminate()
                    if server.wait(60) != 0:
                        raise SystemExit(f"The server ended with status {server.returncode}.")
                finally:
                    # Its reader ends when it does.
                    server.kill()
        finally:
            server.kill()


@contextlib.contextmanager
def moving(model: str, version: str | None) -> Iterator[subprocess.Popen[str] | None]:
    """A process that moves the model's alias to a version once its input ends."""
    name, _, alias = model.removeprefix("models:/").partition("@")
    if version is None:
        yield None
        return
    command = [sys.executable, "-c", _MOVE, name, alias, version]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mover:
        assert mover.stdout is not None
        mover.stdout.readline()
        yield mover


def show(outcome: Outcome, title: str, seconds: float, console: Console) -> dict[str, Any]:
    """Print the figures, and return them."""
    times = np.array(outcome.milliseconds or [np.nan])
    figures: dict[str, Any] = {f"p{q}_ms": round(float(np.percentile(times, q)), 1) for q in (50, 95, 99)}
    figures["max_ms"] = round(float(times.max()), 1)
    figures["per_second"] = round(len(outcome.milliseconds) / seconds, 1)
    figures["cpu_ms_each"] = round(1000 * outcome.processor_seconds / len(times), 1)
    figures["errors"] = sum(outcome.errors.values())
    table = Table(*figures, title=title)
    table.add_row(*map(str, figures.values()))
    console.print(table)
    if outcome.errors:
        console.print("errors:", dict(outcome.errors))
    if outcome.changed_after is not None:
        console.print(
            f"another version answered {outcome.changed_after:.1f} s after the alias moved;",
            "answers by version:",
            dict(outcome.versions),
        )
    return {**figures, "changed_after_s": outcome.changed_after, "answers_by_version": dict(outcome.versions)}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--model", default="models:/prorec-demo@champion", help="a registered model")
    parser.add_argument("--url", help="address of a server of this model that runs already")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--histories", type=int, default=1, help="histories a request")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--move", metavar="VERSION", help="move the model's alias to this version in the middle")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--lists", type=int, default=0, help="measure requests with so many named lists in turn, too")
    parser.add_argument("--share", type=float, default=0.5, help="of the catalogue in each list")
    parser.add_argument("--synthetic", type=int, metavar="ITEMS", help="serve a model that has learnt nothing")
    options = parser.parse_args()
    if options.move and "@" not in options.model:
        parser.error("--move needs a --model with an alias")
    if options.lists and (options.url or options.move):
        parser.error("--lists needs a server of its own, whose alias stays")

    with contextlib.ExitStack() as stack:
        if options.synthetic:
            from benchmarks import synthetic

            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            os.environ["PROREC_ARTIFACTS"] = str(folder / "artifacts")
            (folder / "stages").mkdir()
            options.model = synthetic.register(options.synthetic, folder / "stages")
        return measure(options)


def measure(options: argparse.Namespace) -> int:
    """Measure what was asked for; returns the exit status."""
    from prorec.tasks.registry import recommenders

    try:
        items = recommenders.load(recommenders.find(options.model)).item_ids
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    bodies = make_bodies(items, int(options.rate * options.seconds), options.histories, options.k)
    token = os.environ.setdefault(_TOKEN, secrets.token_urlsafe(32)) if options.lists else ""
    server = contextlib.nullcontext(options.url) if options.url else running_server(options.model)
    title = f"{options.model}, {options.rate:g} requests a second of {options.histories} histories, k = {options.k}"
    with server as url, moving(options.model, options.move) as mover:
        began = time.perf_counter()
        if options.lists:
            names = put_lists(url, token, items, options.lists, options.share)
            ruled = [{**body, "only": {"list": names[place % len(names)]}} for place, body in enumerate(bodies)]
            outcomes = asyncio.run(in_turns(url, [bodies, ruled], options.rate))
        else:
            outcomes = [asyncio.run(load(url, bodies, options.rate, mover))]
        seconds = (time.perf_counter() - began) / len(outcomes)
    outcome = outcomes[0]
    figures = show(outcome, title, seconds, Console())
    if options.lists:
        told = f"the same, each with one of {options.lists} lists of {options.share:.1%} of the items"
        figures["ruled"] = show(outcomes[1], told, seconds, Console())
        figures["p99_grows_by"] = round(figures["ruled"]["p99_ms"] / figures["p99_ms"] - 1, 3)
        print(f"p99 grows by {figures['p99_grows_by']:+.1%}")
    if options.json:
        from benchmarks.laps import machine

        options.json.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    return 1 if any(each.errors for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
