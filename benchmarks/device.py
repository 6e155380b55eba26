"""What training and search cost on one device: `python -m benchmarks --device cuda [--text FILE] [--json FILE]`.

The stages of an experiment as a card runs them, with and without captured and compiled steps, beside Hugging Face T5 at
its best batch; a large shop; wide models and beams, with the share of the card's peak that they reach. All within
--minutes: what would not fit is not begun, and the table says so. On a CPU the same with small sizes, to see it run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.card import Card, Figure, Session, known_peak
from benchmarks.card_data import SMALL_PEER, PeerSizes, Stages
from benchmarks.card_growth import CARD, SMALL, Growth, Sizes
from benchmarks.experiments import experiment_for
from prorec_core.config import Experiment, StepMode
from prorec_core.errors import UserError
from prorec_core.training.runtime import make_runtime

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 9.5
GROUPS = ("data", "shop", "wide", "beams")


def measure(
    session: Session,
    experiment: Experiment,
    text: Path | None,
    sizes: Sizes,
    modes: Sequence[StepMode],
    groups: Sequence[str],
    peers: PeerSizes,
) -> list[Figure]:
    """Work after work, the most telling first."""
    own: StepMode = "graph" if "graph" in modes else "eager"
    growth, stages = Growth(session, sizes, own), Stages(session, experiment, text)
    with_data = "data" in groups and session.run("preprocess", 10, stages.prepare)
    if with_data and session.run(f"all stages, steps={own}", 70, partial(stages.whole, own)):
        _on_real_data(session, stages, modes, peers)
    if "wide" in groups:
        session.run("generator's step of a wide model", 30, growth.utilisation)
        session.run("softmax over a catalogue", 10, growth.softmax)
    if "beams" in groups:
        session.run("search with wide beams", 40, growth.wide_beams)
    if "shop" in groups:
        session.run("a large shop", 120, growth.shop, target="≤ 12")
    for mode in modes if with_data else ():
        if mode != own:
            session.run(f"all stages, steps={mode}", 70, partial(stages.whole, mode))
    return session.figures


def _on_real_data(session: Session, stages: Stages, modes: Sequence[StepMode], peers: PeerSizes) -> None:
    for name, target in (("train_generator", "≤ 1"), ("align", "≤ 0.5")):
        for mode in modes:
            session.run(f"{name}, an epoch, steps={mode}", 25, partial(stages.epoch, name, mode), target)
    for beams in (20, 50):
        session.run(f"search, {beams} beams", 10, partial(stages.search, beams))
    peer = stages.peer()
    for batch in peers.batches:
        session.run(f"T5, an epoch, batch {batch:,}", 8, partial(peer.epoch, batch, peers.steps))
    theirs, ours = (_best(session.figures, words) for words in ("T5, an epoch", "train_generator, an epoch"))
    if theirs and ours:
        session.keep([Figure("generator's epoch against T5's at its best batch", theirs / ours, "×", "≥ 5")])
    session.run("T5, search, 50 beams, all users", 20, partial(peer.search, 50, peers.users))


def _best(figures: Sequence[Figure], words: str) -> float | None:
    return min((each.value for each in figures if each.title.startswith(words) and each.value), default=None)


def show(figures: Sequence[Figure], title: str, console: Console) -> None:
    """Print the table."""
    table = Table(title=title)
    table.add_column("work")
    for name in ("measured", "wanted", "GiB"):
        table.add_column(name, justify="right")
    table.add_column("note")
    for figure in figures:
        table.add_row(figure.title, told(figure), figure.target or "–", _gib(figure), figure.why_not or figure.note)
    console.print(table)
    console.print(
        "GiB: the most that tensors took on the device. T5: Hugging Face's, of TIGER's size, as benchmarks.peer_t5."
    )


def told(figure: Figure) -> str:
    """A figure's value with its unit; a dash where there is none."""
    if figure.value is None:
        return "–"
    digits = 0 if figure.value >= 100 else 1 if figure.value >= 10 else 2
    return f"{figure.value:,.{digits}f} {figure.unit}"


def _gib(figure: Figure) -> str:
    return "–" if figure.gib is None else f"{figure.gib:.1f}"


def machine(card: Card) -> dict[str, Any]:
    """Where the figures were taken."""
    return {
        "device": card.name,
        "peak_tflops": card.peak_tflops,
        "bfloat16": card.low_precision,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks --device DEVICE", description=__doc__)
    parser.add_argument("--device", required=True, help="cuda, cuda:N or cpu")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "amazon-beauty")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "amazon-beauty-gpu.yaml")
    parser.add_argument(
        "--text", type=Path, help="embeddings.parquet of the stage embed_text; else hashed words stand in"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it")
    parser.add_argument("--peak-tflops", type=float, help="of the card, dense bfloat16, where the table has none")
    parser.add_argument("--modes", default="", help="of steps, by comma: eager, graph, compile; what the device can")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, by comma")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    for path, cure in (
        (options.data, "--data FOLDER"),
        (options.config, "--config FILE"),
        (options.text, "--text FILE"),
    ):
        if path is not None and not path.exists():
            print(f"{path}: not found. Name another with {cure}.", file=sys.stderr)
            return 2
    try:
        device = make_runtime(options.device).device
        asked = options.modes.split(",") if options.modes else ["eager", "graph", "compile"]
        if wrong := set(asked) - set(get_args(StepMode)):
            raise UserError(
                f"'{wrong.pop()}' is no mode of steps", place="--modes", cure="Known: eager, graph, compile"
            )
        can: list[StepMode] = ["eager", "compile"] if device.type == "cpu" else ["eager", "graph", "compile"]
        modes = [mode for mode in can if mode in asked]
        card = Card(device)
        card.peak_tflops = options.peak_tflops or known_peak(card.name)
        sizes, peers = (CARD, PeerSizes()) if device.type == "cuda" else (SMALL, SMALL_PEER)
        console = Console()
        with tempfile.TemporaryDirectory(prefix="prorec-benchmarks-") as folder:
            session = Session(card, time.monotonic() + 60 * options.minutes, Path(folder), _teller(console))
            experiment = experiment_for(options.config, options.data, str(device))
            figures = measure(session, experiment, options.text, sizes, modes, options.only.split(","), peers)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    show(figures, f"{options.data.name} and made-up shops on {card.name}", console)
    if options.json:
        found = {"machine": machine(card), "figures": [asdict(figure) for figure in figures]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _teller(console: Console) -> Any:
    def tell(figure: Figure) -> None:
        console.print(f"{figure.title}: {figure.why_not or told(figure)}", highlight=False)

    return tell
