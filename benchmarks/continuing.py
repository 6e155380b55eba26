"""Continuing yesterday's training against training anew: quality on the same test users, and seconds of each.

`python -m benchmarks.continuing EXPERIMENT [--set FIELD=VALUE] [--cut time|position] [--share 0.1]
[--continue FIELD=VALUE,…]`

The log is cut into yesterday's and today's: by its clock, or, where it has none, by position in each history.
Yesterday's is trained on; then today's is trained on anew, and from yesterday's model, as often as `--continue` says
with which settings. All of it runs in a folder of its own, by the program's own command line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from prorec.flows.configuration.experiments import load
from prorec.flows.local.running import TRAINING
from prorec_core.artifacts import write_json
from prorec_core.data.dataset import Dataset
from prorec_core.data.stage import preprocess
from prorec_core.metrics.intervals import compare_runs
from prorec_core.yaml_text import dump

TRAINED = ("train_collaborative", "align", "quantize", "train_generator")
_METRICS = ("recall_at_10", "ndcg_at_10")
_SAMPLES = 10_000


@dataclass(frozen=True)
class Run:
    """One training and what came of it: seconds of its training stages by the clock, and of the processor in all."""

    title: str
    settings: list[str]
    scorer: str
    seconds: float
    processor_seconds: float
    epochs: int
    validation: dict[str, float]
    test: dict[str, float]
    model: str
    ranks: str
    kept: dict[str, float] | None


def yesterday(dataset: Dataset, cut: str, share: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which interactions of a data set were there before its last `share`, shape (interactions,)."""
    lengths = np.diff(dataset.sequences.offsets)
    if cut == "time":
        found: np.ndarray[Any, np.dtype[np.bool_]] = dataset.timestamps < np.quantile(dataset.timestamps, 1 - share)
        return found
    # So many of each history's last items that it is the share in the mean.
    gone = np.floor(share * lengths + np.random.default_rng(seed).random(len(lengths))).astype(np.int64)
    left = np.repeat(dataset.sequences.offsets[1:] - gone, lengths)
    return np.arange(len(dataset.timestamps)) < left


def write_log(dataset: Dataset, keep: np.ndarray[Any, np.dtype[np.bool_]], folder: Path) -> None:
    """Write some interactions and all items as tables."""
    folder.mkdir(parents=True, exist_ok=True)
    users = np.repeat(np.arange(dataset.sequences.n_users), np.diff(dataset.sequences.offsets))[keep]
    rows = {
        "user_id": dataset.users["user_id"].gather(users),
        "item_id": dataset.items["item_id"].gather(dataset.sequences.items[keep]),
        "timestamp": dataset.timestamps[keep],
    }
    pl.DataFrame(rows).write_parquet(folder / "interactions.parquet")
    dataset.items.select("item_id", "title", "text").write_parquet(folder / "items.parquet")


def run(title: str, experiment: dict[str, Any], folder: Path, settings: Sequence[str] = ()) -> Run:
    """Run an experiment by the command line in a store below `folder`; one that was done there is not run again."""
    name = title.replace(" ", "-").replace("=", "-").replace(",", "-")
    done = folder / f"{name}.done.json"
    if done.is_file():
        return Run(**json.loads(done.read_text()))
    (folder / f"{name}.yaml").write_text(dump(experiment))
    words = [
        sys.executable,
        "-m",
        "prorec",
        "run",
        str(folder / f"{name}.yaml"),
        "--json",
        str(folder / f"{name}.json"),
    ]
    words += [word for setting in settings for word in ("--set", setting)]
    # All of it is timed: nothing is cached, and no training that was killed is gone on with.
    words += [word for stage in TRAINED for word in ("--force", stage)]
    shutil.rmtree(folder / "store" / "checkpoints", ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env={**os.environ, **TRAINING, "PROREC_ARTIFACTS": str(folder / "store")}, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads((folder / f"{name}.json").read_text())
    stages = {stage["name"]: stage for stage in found["stages"]}
    metrics, scorer = found["metrics"], found["metrics"]["recommended"]
    epochs = sum(len(_read(stages[stage], "training.json")["epochs"]) for stage in TRAINED if stage != "quantize")
    made = Run(
        title=title,
        settings=list(settings),
        scorer=scorer,
        seconds=round(sum(stages[stage]["seconds"] for stage in TRAINED), 1),
        processor_seconds=round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        epochs=epochs,
        validation={metric: metrics["validation"][scorer][metric] for metric in _METRICS},
        test={metric: metrics["test"][scorer][metric] for metric in _METRICS},
        model=found["model"],
        ranks=str(Path(stages["evaluate"]["uri"]) / "ranks.parquet"),
        kept=_read(stages["quantize"], "quality.json").get("kept"),
    )
    write_json(done, asdict(made))
    return made


def _read(stage: dict[str, Any], file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(stage["uri"]) / file).read_text())
    return found


def differences(one: Run, other: Run) -> dict[str, dict[str, float]]:
    """By metric the difference on the same test users with its 95% interval, one minus other."""
    first, second = (pq.read_table(each.ranks) for each in (one, other))
    return compare_runs(first, second, (one.scorer, other.scorer), samples=_SAMPLES, metrics=_METRICS)


def show(runs: list[Run], against: Run, title: str, console: Console) -> None:
    """Print the table."""
    table = Table(title=title)
    for name in ("training", "epochs", "s", "of anew", "processor s", "validation N@10", "R@10", "N@10"):
        table.add_column(name, no_wrap=name == "training")
    for metric in ("R@10", "N@10"):
        table.add_column(f"{metric} less anew", no_wrap=True)
    for each in runs:
        cells = [each.title, str(each.epochs), f"{each.seconds:.0f}", f"{each.seconds / against.seconds:.2f}"]
        cells += [f"{each.processor_seconds:.0f}", f"{each.validation['ndcg_at_10']:.4f}"]
        cells += [f"{each.test[metric]:.4f}" for metric in _METRICS]
        if each.title not in {against.title, "yesterday"}:
            found = differences(each, against)
            cells += [f"{f['difference']:+.4f} ({f['low']:+.4f} to {f['high']:+.4f})" for f in found.values()]
        table.add_row(*cells)
    console.print(table)
    for each in runs:
        if each.kept:
            console.print(
                f"{each.title}: {each.kept['known']:,} items kept their codes, {each.kept['new']:,} are new; nearest "
                f"to others by now: {each.kept['moved_share']:.1%} (then {each.kept['moved_share_then']:.1%}); error "
                f"{each.kept['relative_error']:.3f} (then {each.kept['relative_error_then']:.3f})"
            )


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.continuing", description=__doc__)
    parser.add_argument("experiment", nargs="?", default="demo", help="a preset or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="settings")
    parser.add_argument("--cut", choices=("time", "position"), default="time", help="position: the log has no clock")
    parser.add_argument("--share", type=float, default=0.1, help="of the interactions that are today's")
    parser.add_argument(
        "--continue",
        action="append",
        default=[],
        metavar="FIELD=VALUE,…",
        dest="variants",
        help="settings of one more training that goes on; '' for the defaults",
    )
    parser.add_argument(
        "--folder", type=Path, help="where to work; what was done there counts. By default a passing one"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    console = Console(width=160)
    with tempfile.TemporaryDirectory(prefix="prorec-continuing-") as passing:
        folder = options.folder or Path(passing)
        experiment = load(options.experiment, options.settings)
        dataset = preprocess(experiment.data)
        keep = yesterday(dataset, options.cut, options.share, experiment.seed)
        write_log(dataset, keep, folder / "yesterday")
        write_log(dataset, np.ones_like(keep), folder / "today")
        values = experiment.model_dump(mode="json")
        read = {"source": "tables", "text_columns": ["text"], "title_column": "title", "duplicates": "keep"}
        mins = {name: values["data"][name] for name in ("min_user_interactions", "min_item_interactions")}

        def of(day: str, start: str | None = None) -> dict[str, Any]:
            name = f"continuing-{experiment.name}"[:60]
            return {**values, "name": name, "start_from": start, "data": {**read, **mins, "path": str(folder / day)}}

        base = run("yesterday", of("yesterday"), folder)
        anew = run("anew", of("today"), folder)
        runs = [base, anew]
        for variant in options.variants or [""]:
            settings = [setting for setting in variant.split(",") if setting]
            title = " ".join(["continued", *(setting.removeprefix("continuing.") for setting in settings)])
            runs.append(run(title, of("today", base.model), folder, settings))
        new = len(keep) - int(keep.sum())
        show(runs, anew, f"{experiment.name}, cut by {options.cut}: {new:,} of {len(keep):,} are today's", console)
        if options.json:
            shown = [
                {**asdict(each), "less_anew": differences(each, anew) if each is not base else None} for each in runs
            ]
            options.json.write_text(json.dumps(shown, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
