"""Seconds and memory of PRORec beside the usual implementation, on the same machine in the same minutes.

`python -m benchmarks [--data FOLDER] [--json FILE]`. The usual implementation runs a few steps, scaled up.
`python -m benchmarks scale --minutes MINUTES` tells what each stage costs as the catalogue grows, `python -m benchmarks
--device cuda` what a card makes of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.laps import Subject, machine, take_turns

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One piece of work: our subject and the peer's, the seconds allowed, and the ratio wanted."""

    title: str
    subject: str
    limit: float | None = None
    peer: str | None = None
    ratio: float | None = None


GROUPS = (
    (Row("preprocess", "preprocessing", 3),),
    (Row("align, an epoch", "align_epoch", 20),),
    (Row("generator, an epoch", "generator_epoch", 15, "peer_epoch", 50),),
    (
        Row("beam search, 20 beams", "beam_search:20", None, "peer_beam_search:20"),
        Row("beam search, 50 beams", "beam_search:50", 60, "peer_beam_search:50", 50),
    ),
)
"""Work that is timed together, taking turns."""


@dataclass(frozen=True)
class Result:
    """What was measured of a row: seconds are medians, bytes are peaks of whole processes."""

    title: str
    seconds: float
    laps: list[float]
    peak_bytes: int
    limit_seconds: float | None
    peer_seconds: float | None = None
    peer_laps: list[float] | None = None
    peer_peak_bytes: int | None = None
    wanted_ratio: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times longer the peer takes."""
        return None if self.peer_seconds is None else self.peer_seconds / self.seconds


def measure(config: Path, data: Path, laps: int, only: str, console: Console) -> list[Result]:
    """Prepare the inputs, then time group after group whose title holds `only`."""
    # A bare machine with a card, where the other commands run, has not all that this imports.
    from prorec.flows.local.running import TRAINING

    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="prorec-benchmarks-") as folder:
        arguments = [str(config), str(data), folder]

        def start(name: str) -> Subject:
            return Subject.start(name, arguments, {} if name.startswith("peer") else TRAINING)

        with console.status("preparing: every stage once, briefly"):
            take_turns([start("prepare")], laps=0)
        for group in GROUPS:
            rows = [row for row in group if only in row.title]
            names = [name for row in rows for name in (row.subject, row.peer) if name]
            subjects = {name: start(name) for name in names}
            with console.status(", ".join(row.title for row in rows) or "…"):
                take_turns(list(subjects.values()), laps)
            results += [_result(row, subjects) for row in rows]
    return results


def _result(row: Row, subjects: dict[str, Subject]) -> Result:
    ours = subjects[row.subject]
    if row.peer is None:
        return Result(row.title, ours.median, ours.seconds, ours.peak, row.limit)
    peer = subjects[row.peer]
    return Result(
        row.title,
        ours.median,
        ours.seconds,
        ours.peak,
        row.limit,
        peer.median,
        peer.seconds,
        peer.peak,
        row.ratio,
    )


def show(results: list[Result], title: str, console: Console) -> None:
    """Print the table."""
    where = machine()
    table = Table(title=f"{title} on {where['cores']} cores ({where['processor']})")
    table.add_column("work", no_wrap=True)
    for name in ("s", "at most", "usual", "ratio", "at least", "GiB", "usual GiB"):
        table.add_column(name, justify="right")
    for found in results:
        slow = found.limit_seconds is not None and found.seconds > found.limit_seconds
        near = found.ratio is not None and found.wanted_ratio is not None and found.ratio < found.wanted_ratio
        table.add_row(
            found.title,
            f"[{'red' if slow else 'green'}]{found.seconds:,.1f}[/]",
            _number(found.limit_seconds),
            _number(found.peer_seconds),
            "–" if found.ratio is None else f"[{'red' if near else 'green'}]{found.ratio:,.0f}[/]",
            _number(found.wanted_ratio),
            _gibibytes(found.peak_bytes),
            _gibibytes(found.peer_peak_bytes),
        )
    console.print(table)
    console.print(
        "GiB: the peak of a whole process. usual: Hugging Face T5 of TIGER's size, float32, one sample a prefix "
        "padded to 20 items; its epoch is training alone, ours holds validation and a checkpoint too. "
        "Beam search is for all users; the usual one asks a Python trie."
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _gibibytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 2**30:.1f}"


def main() -> int:
    """Run the command line."""
    if sys.argv[1:2] == ["scale"]:
        from benchmarks import scale

        return scale.main(sys.argv[2:])
    if any(argument.partition("=")[0] == "--device" for argument in sys.argv[1:]):
        from benchmarks import device

        return device.main(sys.argv[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "amazon-beauty")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "amazon-beauty.yaml")
    parser.add_argument("--laps", type=int, default=3, help="repetitions that count, after one that warms up")
    parser.add_argument("--only", default="", help="only work whose title holds this text")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    for path, cure in ((options.data, "--data FOLDER (make bench DATA=FOLDER)"), (options.config, "--config FILE")):
        if not path.exists():
            print(f"{path}: not found. Name another with {cure}.", file=sys.stderr)
            return 2
    console = Console()
    results = measure(options.config, options.data, options.laps, options.only, console)
    show(results, f"{options.data.name}, medians of {options.laps}", console)
    if options.json:
        figures = [{**asdict(found), "ratio": found.ratio} for found in results]
        options.json.write_text(json.dumps({"machine": machine(), "results": figures}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
