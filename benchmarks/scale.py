"""What each stage costs as the catalogue grows: `python -m benchmarks scale --minutes 30 [--output FOLDER]`.

Made-up shops from small to large, item vectors given; each stage in a process of its own. What would not fit the time
that is left, told from the sizes before, or the memory that there is, is not begun, and the table says so. After every
stage the figures are written (scale.json, scale.md, scale.png); a second call with the same output goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.budget import Point, does_not_fit, memory_of
from benchmarks.experiments import changed
from benchmarks.laps import machine
from benchmarks.scale_page import markdown, plot
from benchmarks.scale_stage import NAMES, reads
from benchmarks.shop import Size, settings_of, write_shop
from prorec.flows.configuration import experiments
from prorec.flows.local.running import TRAINING
from prorec.tasks.local.memory import room
from prorec_core.artifacts import read_json, write_bytes, write_json
from prorec_core.config import Experiment
from prorec_core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ITEMS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
DIM = 128
PRESET, EPOCHS = "amazon-beauty", tuple(f"{section}.epochs=2" for section in ("collaborative", "align", "generator"))
"""What is run: costs are those of an epoch, and two show that they are alike."""


@dataclass
class Row:
    """A stage at one size: what it took, or why that is not known.

    Attributes:
        stage: its name.
        items, users: the size.
        figures: seconds, processor_seconds, peak_bytes, and of a CUDA device device_bytes; {} where there are none.
        why_not: a sentence; empty where it was measured.
    """

    stage: str
    items: int
    users: int
    figures: dict[str, float] = field(default_factory=dict)
    why_not: str = ""


class Campaign:
    """The sizes, the rows so far, and where they are written."""

    def __init__(self, sizes: Sequence[Size], experiment: Experiment, output: Path, seconds: float) -> None:
        self.sizes, self.experiment, self.output = sizes, experiment, output
        self.ends = time.monotonic() + seconds
        self.asked = {"per_user": sizes[0].per_user, "experiment": experiment.model_dump(mode="json")}
        self.rows = self._found()

    def run(self, console: Console) -> None:
        """Measure stage after stage, size after size; what was measured before is not measured again."""
        for size in self.sizes:
            if any(self._row(name, size) is None for name in NAMES):
                try:
                    self._one_size(size, console)
                finally:
                    self._draw()

    def _one_size(self, size: Size, console: Console) -> None:
        folder = self.output / "work" / f"{size.items}-{size.users}"
        missing: set[str] = set()
        if not (folder / "experiment.json").exists() and not self._refusal(NAMES[0], size, missing):
            # Of a size whose files are gone all is made again.
            self.rows = [row for row in self.rows if (row.items, row.users) != (size.items, size.users)]
            shutil.rmtree(folder, ignore_errors=True)
            with console.status(f"{size}: making it up"):
                self._make_up(folder, size)
        for name in NAMES:
            if self._row(name, size) is not None:
                continue
            row = Row(name, size.items, size.users, why_not=self._refusal(name, size, missing))
            if not row.why_not:
                with console.status(f"{size}: {name}"):
                    row.figures, row.why_not = self._measured(name, folder)
            if row.why_not:
                missing.add(name)
            told = row.why_not or f"{row.figures['seconds']:,.1f} s, {row.figures['peak_bytes'] / 2**30:.2f} GiB"
            console.print(f"{size}: {name}: {told}", highlight=False)
            self._keep(row)
        if not missing:
            shutil.rmtree(folder)

    def _make_up(self, folder: Path, size: Size) -> None:
        shop = folder / "shop"
        shop.mkdir(parents=True)
        write_shop(shop, size, DIM)
        experiment = changed(self.experiment, settings_of(shop))
        write_json(folder / "experiment.json", experiment.model_dump(mode="json"))

    def _refusal(self, name: str, size: Size, missing: set[str]) -> str:
        """Why a stage is not begun; empty where it is."""
        if without := [each for each in reads(name) if each in missing]:
            return f"without {without[0]}"
        now, left = size.items + size.users, self.ends - time.monotonic()
        before = sorted((row for row in self.rows if row.stage == name and row.figures), key=_large)
        before = [row for row in before if _large(row) < now]
        if told := does_not_fit([Point(_large(row), row.figures["seconds"]) for row in before], now, left):
            return told
        memory, there = memory_of([Point(_large(row), row.figures["peak_bytes"]) for row in before], now), room()
        if memory and there and memory > there.available:
            return f"would not fit memory: about {memory / 2**30:.1f} GiB, {there.available / 2**30:.1f} are free"
        return ""

    def _measured(self, name: str, folder: Path) -> tuple[dict[str, float], str]:
        """What a stage took, or why it was not measured."""
        command = [sys.executable, "-m", "benchmarks.scale_stage", name, str(folder)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **TRAINING}, cwd=ROOT
        ) as process:
            try:
                printed, said = process.communicate(timeout=max(1.0, self.ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                return {}, "stopped: the budget was over before it was done"
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            return {}, f"failed: {(said.strip().splitlines() or [f'status {process.returncode}'])[-1]}"
        figures: dict[str, float] = json.loads(printed.splitlines()[-1])
        return figures, ""

    def _row(self, name: str, size: Size) -> Row | None:
        """What was measured of a stage at a size."""
        own = (row for row in self.rows if (row.stage, row.items, row.users) == (name, size.items, size.users))
        return next((row for row in own if row.figures), None)

    def _found(self) -> list[Row]:
        """The rows that an earlier call with the same settings has measured."""
        path = self.output / "scale.json"
        if not path.is_file():
            return []
        found: dict[str, Any] = read_json(path)
        if found["asked"] != self.asked:
            raise UserError(
                "what was measured there had other settings", place=str(path), cure="Name another folder with --output"
            )
        return [row for row in (Row(**each) for each in found["rows"]) if row.figures]

    def _keep(self, row: Row) -> None:
        last = {(each.stage, each.items, each.users): each for each in [*self.rows, row]}
        self.rows = list(last.values())
        where = {**machine(), "device": _device(self.experiment.device)}
        described = {"machine": where, "asked": self.asked, "rows": [asdict(each) for each in self.rows]}
        write_json(self.output / "scale.json", described)

    def _draw(self) -> None:
        if self.rows:
            described = read_json(self.output / "scale.json")
            write_bytes(self.output / "scale.md", markdown(described).encode())
            write_bytes(self.output / "scale.png", plot(described))


def _device(asked: str) -> str:
    """The name of the CUDA device that trainings use; empty where they use none."""
    import torch

    from prorec_core.training.runtime import make_runtime

    device = make_runtime(asked).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def _large(row: Row) -> int:
    """The size of a row, by which costs are predicted."""
    return row.items + row.users


def _sizes(items: Sequence[int], users: Sequence[int] | None, per_user: int) -> Iterator[Size]:
    if users is not None and len(users) != len(items):
        raise UserError(
            f"{len(users)} numbers of users for {len(items)} of items", place="--users", cure="Give as many"
        )
    for place, count in enumerate(sorted(items)):
        size = Size(count, count // 2 if users is None else sorted(users)[place], per_user)
        if size.users * per_user < size.items + 4 * size.users:
            raise UserError(
                f"{size} with {per_user} interactions each are too few for all items to occur",
                place="--per-user",
                cure="Give more users or interactions",
            )
        yield size


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--minutes", type=float, required=True, help="what it may take in all")
    parser.add_argument("--items", type=int, nargs="+", default=list(ITEMS), help="sizes of the catalogue")
    parser.add_argument("--users", type=int, nargs="+", help="users for each; by default half as many as items")
    parser.add_argument("--per-user", type=int, default=13, help="interactions of a user on average")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="another setting")
    parser.add_argument("--output", type=Path, default=ROOT / "artifacts" / "scale", help="folder for what it leaves")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        experiment = experiments.load(PRESET, [*EPOCHS, "name=scale", f"device={asked.device}", *asked.set])
        campaign = Campaign(
            list(_sizes(asked.items, asked.users, asked.per_user)),
            experiment,
            asked.output.absolute(),
            60 * asked.minutes,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    console = Console()
    try:
        campaign.run(console)
    except KeyboardInterrupt:
        console.print("stopped; what was measured is kept, and the same command goes on from there")
        return 130
    print(markdown(read_json(asked.output / "scale.json")))
    return 0
