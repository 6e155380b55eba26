"""The settings that the rule gives, held against presets and others on validation: `python -m benchmarks.fitting`.

`python -m benchmarks.fitting DATASET=FOLDER… [--folder WORK] [--minutes M] [--stage STAGE] [--bases [BASE…]]
[--try NAME=BASE,FIELD=VALUE,…]`

By data set (amazon-beauty, yelp, ml-100k) and trial it trains SASRec on ids and Stage I over it (with `--stage
train_generator` the whole pipeline), measures NDCG@10 of all validation targets, and tells how far each trial is from
the preset, with a 95% interval of a paired bootstrap over users. What is measured is kept in WORK and not measured
again; a training that the minutes end goes on from its last epoch the next time. Nothing here looks at the test.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from prorec.flows.configuration import plain_yaml
from prorec.flows.configuration.experiments import changed, load
from prorec.flows.local.running import prepare_training
from prorec_core import api
from prorec_core.alignment.stage import align
from prorec_core.alignment.trained import AlignedModel
from prorec_core.artifacts import read_json, sha256_json, write_json
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import read_embeddings
from prorec_core.data.sequences import Split
from prorec_core.fitting import Size, fitted
from prorec_core.metrics.intervals import compare
from prorec_core.metrics.measures import ndcg_at_k
from prorec_core.progress import Progress
from prorec_core.sequential.base import target_ranks
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.trained import CollaborativeModel
from prorec_core.training.runtime import make_runtime

PRESETS = {"amazon-beauty": "amazon-beauty", "ml-100k": "ml-100k", "yelp": "amazon-beauty"}
"""By data set the preset that is the best known for it."""
BASES = ("preset", "demo", "rule")
STAGES = ("train_collaborative", "align", "train_generator")
_METRIC = "ndcg_at_10"
_SAMPLES = 10_000
Ranks = npt.NDArray[np.int32]


class OverBudgetError(Exception):
    """The minutes are used up."""


@dataclass(frozen=True)
class Trial:
    """Settings on a data set, and where what they came to is kept."""

    name: str
    experiment: Experiment
    folder: Path

    def place(self, stage: str) -> Path:
        """The folder of a stage: trials that share its settings, and those of the stages before, share it."""
        values = self.experiment.model_dump(mode="json")
        sections = ["collaborative", "align", "quantize", "generator"][: {"train_generator": 4}.get(stage, 2)]
        sections = sections[:1] if stage == "train_collaborative" else sections
        return self.folder / f"{stage}-{sha256_json([values['seed'], *(values[name] for name in sections)])[:16]}"


def experiment_of(dataset: str, folder: str, size: Size, base: str, settings: Mapping[str, Any]) -> Experiment:
    """A data set's experiment with the settings of a base, and some others in their place.

    Args:
        dataset: one of `PRESETS`.
        folder: with its files.
        size: of its data.
        base: preset; demo: what the built-in shop has; rule: what follows from the data.
        settings: values by dotted field.
    """
    found = load(PRESETS[dataset], [f"data.path={folder}"])
    if base == "demo":
        found = Experiment().model_copy(update={"data": found.data})
    if base == "rule":
        found = Experiment(data=found.data)
    return fitted(changed(found.model_copy(update={"name": dataset}), settings, "--try"), size)


def measure(trial: Trial, stage: str, out_of_time: Callable[[], bool]) -> dict[str, Any]:
    """Validation figures of a stage, made where they are not there yet; `ranks` is the file of its ranks.

    Raises:
        OverBudgetError: it did not end in time.
    """
    place = trial.place(stage)
    done = place / "figures.json"
    if done.is_file():
        return dict(read_json(done))
    if out_of_time():
        raise OverBudgetError

    def report(progress: Progress) -> None:
        print(f"  {trial.name} {stage}: {progress.step}/{progress.total} {dict(progress.metrics)}", flush=True)
        # An epoch is reported once its checkpoint is there.
        if progress.unit == "epoch" and progress.step < progress.total and out_of_time():
            raise OverBudgetError

    place.mkdir(parents=True, exist_ok=True)
    ranks, epochs = (_whole if stage == "train_generator" else _dense)(trial, stage, place, report)
    np.save(place / "ranks.npy", ranks)
    figures = {
        "ndcg_at_10": ndcg_at_k(ranks, 10),
        "epochs": epochs,
        "settings": trial.experiment.model_dump(mode="json"),
        "ranks": str(place / "ranks.npy"),
    }
    write_json(done, figures)
    return figures


def _dense(trial: Trial, stage: str, place: Path, report: Callable[[Progress], None]) -> tuple[Ranks, int]:
    """Ranks of all validation targets by SASRec or Stage I, int32, 0: not found; and how many epochs it took."""
    experiment = trial.experiment
    dataset = Dataset.load(trial.folder / "data" / "preprocess")
    runtime = make_runtime(experiment.device, report, place / "checkpoints")
    trained: CollaborativeModel | AlignedModel
    if stage == "train_collaborative":
        trained = train_collaborative(experiment.collaborative, dataset.sequences, experiment.seed, runtime)
    else:
        texts = read_embeddings(trial.folder / "data" / "embed_text" / "embeddings.parquet", "embed_text")
        start = CollaborativeModel.load(trial.place("train_collaborative"))
        trained = align(experiment.align, dataset.sequences, start, texts, experiment.seed, runtime)
    trained.save(place)
    model, table = trained.sequential_model(runtime.device)
    histories, targets = dataset.sequences.histories(Split.VALIDATION), dataset.sequences.targets(Split.VALIDATION)
    return target_ranks(model, table, histories, targets, trained.max_history), len(trained.training)


def _whole(trial: Trial, stage: str, place: Path, report: Callable[[Progress], None]) -> tuple[Ranks, int]:
    """The same by the scorer that the whole pipeline recommends by."""
    run = api.train(
        trial.experiment, place / "run", until="evaluate", tell=lambda _, progress: report(progress), quiet=True
    )
    rows = run.evaluation.ranks.filter(pc.equal(run.evaluation.ranks["split"], "validation"))
    return rows[f"rank_{run.evaluation.metrics['recommended']}"].to_numpy(), len(run.training[stage])


def show(found: Mapping[str, Mapping[tuple[str, str], Mapping[str, Any]]], console: Console) -> list[dict[str, Any]]:
    """Print a table a data set; returns its rows."""
    rows = []
    for dataset, figures in found.items():
        table = Table("settings", "stage", "NDCG@10", "less the preset's, 95%", "epochs", title=dataset)
        for (name, stage), each in figures.items():
            row = {"dataset": dataset, "settings": name, "stage": stage, **each}
            against = figures.get(("preset", stage))
            interval = "–"
            if against is not None and name != "preset":
                own, preset = (np.load(one["ranks"]) for one in (each, against))
                row["difference"] = difference = compare(own, preset, _SAMPLES, metrics=(_METRIC,))[_METRIC]
                interval = f"{difference['difference']:+.4f} ({difference['low']:+.4f} … {difference['high']:+.4f})"
            table.add_row(name, stage, f"{each[_METRIC]:.4f}", interval, str(each["epochs"]))
            rows.append(row)
        console.print(table)
    return rows


def _dataset(text: str) -> tuple[str, str]:
    """The data set and the folder of DATASET=FOLDER."""
    name, _, folder = text.partition("=")
    if name not in PRESETS or not Path(folder).is_dir() or not folder:
        raise argparse.ArgumentTypeError(f"'{text}': give DATASET=FOLDER, where DATASET is one of {', '.join(PRESETS)}")
    return name, folder


def _trial(text: str) -> tuple[str, str, dict[str, Any]]:
    """Name, base and settings of NAME=BASE,FIELD=VALUE,…"""
    name, _, what = text.partition("=")
    base, *settings = what.split(",")
    if base not in BASES:
        raise argparse.ArgumentTypeError(f"'{text}': give NAME=BASE,…, where BASE is one of {', '.join(BASES)}")
    return (
        name,
        base,
        {field: plain_yaml.parse(value) for field, _, value in (each.partition("=") for each in settings)},
    )


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fitting", description=__doc__)
    parser.add_argument("datasets", nargs="+", type=_dataset, metavar="DATASET=FOLDER", help="Data sets by name.")
    parser.add_argument(
        "--folder", type=Path, default=Path("fitting"), help="where to work; what was done there counts"
    )
    parser.add_argument(
        "--minutes", type=float, default=60, help="when to stop; what is not finished goes on next time"
    )
    parser.add_argument("--stage", choices=STAGES, default="align", help="the last one that is trained")
    parser.add_argument(
        "--bases", nargs="*", choices=BASES, default=BASES, help="which are measured as they are; or none"
    )
    parser.add_argument(
        "--try", action="append", type=_trial, default=[], metavar="NAME=BASE,FIELD=VALUE,…", dest="tried"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    prepare_training()
    until = time.monotonic() + 60 * options.minutes
    found: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
    stages = STAGES[: STAGES.index(options.stage) + 1]
    ended = True
    for dataset, folder in options.datasets:
        own = options.folder / dataset
        data = load(PRESETS[dataset], [f"data.path={folder}"]).data
        # What knows items by their ids needs no texts.
        reads = "preprocess" if options.stage == STAGES[0] else "embed_text"
        read = api.train(Experiment(name=dataset, data=data), own / "data", until=reads, quiet=True)
        size = Size.of(read.dataset.profile)
        figures = found.setdefault(dataset, {})
        for name, base, settings in [*((base, base, {}) for base in options.bases), *options.tried]:
            trial = Trial(name, experiment_of(dataset, folder, size, base, settings), own)
            for stage in stages:
                try:
                    figures[name, stage] = measure(trial, stage, lambda: time.monotonic() > until)
                except OverBudgetError:
                    print(f"{dataset}, {name}, {stage}: not finished in the minutes given", flush=True)
                    ended = False
                    break
    rows = show(found, Console(width=140))
    if options.json:
        write_json(options.json, rows)
    return 0 if ended else 1


if __name__ == "__main__":
    sys.exit(main())
