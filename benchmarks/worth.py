"""Where a part of the method is worth something: `python -m benchmarks.worth alignment|distillation [EXPERIMENT]`.

`[--set FIELD=VALUE] [--seeds 3] [--folder WORK] [--minutes M] [--processes P] [--plot PNG] [--json FILE]`

`alignment`: Stage I alone with α over three decades against α = 0, for all targets, for targets that training has seen
five times at most, for new items where 5% or 20% of the catalogue are held out, and with a tenth of the users.
`distillation`: codes alone (no node scores, no ranker) with and without the distillation, against what quantization
loses, over numbers of levels and of codes.

Each difference is of the same users on test, the mean over seeds, with a 95% interval of a paired bootstrap over users.
Trainings that share a stage share it; what is measured is kept in WORK and not measured again, and what the minutes end
goes on from there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.continuing import write_log
from benchmarks.worth_plots import plot
from prorec.flows.configuration.experiments import changed, load
from prorec.flows.local.running import prepare_training
from prorec_core import api
from prorec_core.alignment.trained import AlignedModel
from prorec_core.artifacts import read_json, sha256_json, write_bytes, write_json
from prorec_core.config import Experiment
from prorec_core.data.sequences import Sequences, Split
from prorec_core.data.stage import preprocess
from prorec_core.errors import UserError
from prorec_core.evaluation.lists import dense_lists
from prorec_core.evaluation.new_items import new_item_histories, new_targets
from prorec_core.generation.stage import BETA_OF_THE_DENSE_SCORE
from prorec_core.metrics.intervals import difference_of
from prorec_core.metrics.measuring import values_by_user
from prorec_core.metrics.top import rank_of_target
from prorec_core.run import Run
from prorec_core.threads import cores
from prorec_core.training.runtime import make_runtime

PARTS = ("alignment", "distillation")
METRICS = ("ndcg_at_10", "recall_at_10")
ALPHAS = (0.01, 0.1, 1.0, 10.0)
LEVELS, CODES = (2, 3, 4), (32, 128, 512)
RARE = 5
_SAMPLES = 10_000
_SHARED = {"alignment": "train_collaborative", "distillation": "align"}
"""The last stage that all trainings of a situation and a seed have in common."""
Ranks = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Trial:
    """One training: in which situation, with the part at which strength, and with which seed.

    Attributes:
        part: one of `PARTS`.
        situation: what is told apart, as "20% new".
        weight: α or β.
        experiment: what is trained.
        points: what the situation is, in numbers, as levels and codes.
    """

    part: str
    situation: str
    weight: float
    experiment: Experiment
    points: Mapping[str, float] = field(default_factory=dict)

    def place(self, folder: Path) -> Path:
        """Where its figures are kept: a change of any setting is another place."""
        values = self.experiment.model_dump(mode="json")
        return folder / f"{self.part}-{sha256_json([self.situation, values])[:16]}"

    def shared(self, folder: Path) -> Path:
        """Where the stages are that it shares with others."""
        return folder / f"shared-{sha256_json(self.common.model_dump(mode='json'))[:16]}"

    @property
    def common(self) -> Experiment:
        """The same experiment whatever the part's strength, and whatever the codes are."""
        same = {
            "alignment": {"align.alpha": 0.0},
            "distillation": {
                "quantize.levels": LEVELS[0],
                "quantize.codes": CODES[0],
                "generator.distill.beta": 0.0,
            },
        }
        return changed(self.experiment, same[self.part], self.part)


def trials_of(part: str, base: Experiment, seeds: Iterable[int], fewer: Callable[[], Experiment]) -> list[Trial]:
    """All that is trained, seed by seed.

    Args:
        part: one of `PARTS`.
        base: what is varied.
        seeds: of the trainings.
        fewer: gives the experiment of a tenth of the users.
    """
    found = []
    for seed in seeds:

        def with_seed(experiment: Experiment, settings: Mapping[str, Any], seed: int = seed) -> Experiment:
            return changed(experiment, {"seed": seed, **settings}, part)

        if part == "alignment":
            held_out = {"as it is": 0.0, "5% new": 0.05, "20% new": 0.2}
            situations = {name: with_seed(base, {"data.new_items": share}) for name, share in held_out.items()}
            situations["a tenth of the users"] = with_seed(fewer(), {})
            found += [
                Trial(part, name, alpha, changed(each, {"align.alpha": alpha}, part))
                for name, each in situations.items()
                for alpha in (0.0, *ALPHAS)
            ]
        else:
            alone = {"generator.node_scores": False, "generator.ranker": False, "evaluate.fusion_weights": [0.0]}
            found += [
                Trial(
                    part,
                    f"{levels} × {codes}",
                    beta,
                    with_seed(
                        base,
                        {
                            **alone,
                            "quantize.levels": levels,
                            "quantize.codes": codes,
                            "generator.distill.beta": beta,
                        },
                    ),
                    {"levels": levels, "codes": codes},
                )
                for levels in LEVELS
                for codes in CODES
                for beta in (0.0, base.generator.distill.beta or BETA_OF_THE_DENSE_SCORE)
            ]
    return found


def tenth_of_users(base: Experiment, folder: Path) -> Experiment:
    """The experiment on every tenth user's whole history, and the items that these have, however seldom."""
    place = folder / "tenth"
    if not (place / "items.parquet").is_file():
        dataset = preprocess(base.data)
        owners = np.repeat(np.arange(dataset.sequences.n_users), np.diff(dataset.sequences.offsets))
        shutil.rmtree(aside := folder / "tenth.part", ignore_errors=True)
        write_log(dataset, owners % 10 == 0, aside)
        aside.replace(place)
    data = {
        "source": "tables",
        "path": str(place),
        "text_columns": ["text"],
        "title_column": "title",
        "duplicates": "keep",
        "min_user_interactions": 3,
        "min_item_interactions": 1,
    }
    return changed(base, {"data": data}, "--set")


def make_shared(trial: Trial, folder: Path) -> None:
    """Train what a trial has in common with others, where it is not there yet."""
    api.train(trial.common, trial.shared(folder), until=_SHARED[trial.part], quiet=True)


def measure(trial: Trial, folder: Path) -> None:
    """Train and measure one trial, and keep its figures: ranks.npz by group of targets, then figures.json."""
    place, work = trial.place(folder), trial.place(folder).with_suffix(".work")
    shared = trial.shared(folder)
    work.mkdir(parents=True, exist_ok=True)
    for stage in shared.iterdir():
        if stage.is_dir() and not (work / stage.name).exists() and not stage.name.startswith("."):
            shutil.copytree(stage, work / stage.name, copy_function=os.link)
    run = api.train(trial.experiment, work, until="align" if trial.part == "alignment" else "evaluate", quiet=True)
    ranks, about = (_of_stage_one if trial.part == "alignment" else _of_codes)(run)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    np.savez(place / "ranks.npz", **ranks)  # type: ignore[arg-type]
    write_json(place / "figures.json", about)
    shutil.rmtree(work)


def _of_stage_one(run: Run) -> tuple[dict[str, Ranks], dict[str, float]]:
    """Ranks of test targets and of new items by Stage I alone, and which targets are rare."""
    dataset, aligned = run.dataset, AlignedModel.load(run.folder / "align")
    targets = dataset.sequences.targets(Split.TEST)
    ranks = _ranks(run, aligned, dataset.sequences.histories(Split.TEST), targets)
    rare = dataset.sequences.train_counts()[targets] <= RARE
    if dataset.new_items is None:
        return {"all": ranks, "rare": ranks[rare]}, {}
    _, takers = new_item_histories(dataset)
    return {"all": ranks, "new": _ranks(run, aligned.with_new(), takers, new_targets(dataset))}, {}


def _ranks(run: Run, aligned: AlignedModel, histories: Sequences, targets: Any) -> Ranks:
    model, table_NE = aligned.sequential_model(make_runtime(run.experiment.device).device)
    config = run.experiment.evaluate
    lists = dense_lists(model, table_NE, histories, config.list_length, aligned.max_history, masked=config.mask_history)
    return rank_of_target(lists.items_UK, targets)


def _of_codes(run: Run) -> tuple[dict[str, Ranks], dict[str, float]]:
    """Ranks of test targets by codes alone, and what quantization lost."""
    lost = float(run.quality["relative_error"])
    return {"all": run.evaluation.test_ranks["generative"]}, {"relative_error": lost}


def run_all(trials: Sequence[Trial], folder: Path, processes: int, until: float) -> list[Trial]:
    """Measure all that is not there yet, some at a time; returns what is there in the end."""
    todo = [each for each in trials if not _is_there(each, folder)]
    groups: dict[Path, list[Trial]] = {}
    for each in todo:
        groups.setdefault(each.shared(folder), []).append(each)
    print(f"{len(trials)} trainings, {len(todo)} to be made, {processes} at a time", flush=True)
    # Processes that begin from here read it.
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(cores()) // processes))
    ready: list[Callable[[], None]] = [partial(make_shared, group[0], folder) for group in groups.values()]
    waiting = dict(zip(ready, groups.values(), strict=True))
    done = 0
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        at_work: dict[Future[None], Callable[[], None]] = {}
        while at_work or (ready and time.monotonic() < until):
            while ready and len(at_work) < processes and time.monotonic() < until:
                call = ready.pop(0)
                at_work[pool.submit(call)] = call
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                call = at_work.pop(future)
                future.result()
                if group := waiting.pop(call, None):
                    # What can be measured now goes before what begins anew.
                    ready[:0] = [partial(measure, each, folder) for each in group]
                else:
                    done += 1
                    print(f"{done} of {len(todo)} measured", flush=True)
    return [each for each in trials if _is_there(each, folder)]


def _is_there(trial: Trial, folder: Path) -> bool:
    return (trial.place(folder) / "figures.json").is_file()


def rows_of(trials: Sequence[Trial], folder: Path) -> list[dict[str, Any]]:
    """By situation, group of targets and weight: the mean, and the difference to weight 0 with its interval."""
    measured: dict[tuple[str, float], list[tuple[Trial, dict[str, Ranks], dict[str, float]]]] = {}
    for each in trials:
        with np.load(each.place(folder) / "ranks.npz") as ranks:
            found = dict(ranks)
        about = read_json(each.place(folder) / "figures.json")
        measured.setdefault((each.situation, each.weight), []).append((each, found, about))
    rows = []
    for (situation, weight), own in measured.items():
        for group in own[0][1]:
            seeds = {trial.experiment.seed: (found, about) for trial, found, about in own}
            without = {trial.experiment.seed: found for trial, found, _ in measured.get((situation, 0.0), ())}
            both = sorted(seeds.keys() & without.keys())
            if not len(own[0][1][group]):
                continue
            row: dict[str, Any] = {
                "part": own[0][0].part,
                "situation": situation,
                "group": group,
                "weight": weight,
                "targets": len(own[0][1][group]),
                "seeds": both if weight else sorted(seeds),
                **own[0][0].points,
            }
            if "relative_error" in own[0][2]:
                row["relative_error"] = float(np.mean([about["relative_error"] for _, _, about in own]))
            for metric in METRICS:
                row[metric] = round(
                    float(np.mean([values_by_user(metric, found[group]).mean() for _, found, _ in own])), 6
                )
                if weight and both:
                    values = [
                        np.mean([values_by_user(metric, side[seed][group]) for seed in both], axis=0)
                        for side in ({seed: found for seed, (found, _) in seeds.items()}, without)
                    ]
                    found = difference_of(values[0] - values[1], _SAMPLES)
                    row[f"{metric}_difference"] = [found[name] for name in ("low", "difference", "high")]
            rows.append(row)
    return rows


def show(rows: Sequence[Mapping[str, Any]], title: str, console: Console) -> None:
    """Print the table."""
    table = Table("situation", "targets", "weight", "error", "NDCG@10", "less without", "Recall@10", "less without")
    table.title = title
    for row in rows:
        cells = [row["situation"], f"{row['group']} ({row['targets']:,})", f"{row['weight']:g}"]
        cells.append(f"{row['relative_error']:.3f}" if "relative_error" in row else "–")
        for metric in METRICS:
            cells.append(f"{row[metric]:.4f}")
            low, middle, high = row.get(f"{metric}_difference", (None, None, None))
            cells.append("" if middle is None else f"{middle:+.4f} ({low:+.4f} … {high:+.4f})")
        table.add_row(*cells)
    console.print(table)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it has to be 1 or more")
    return number


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.worth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("experiment", nargs="?", default="demo", help="a preset or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="settings")
    parser.add_argument("--seeds", type=_positive, default=3, help="how many, from 0")
    parser.add_argument("--only", action="append", default=[], metavar="SITUATION", help="as '20%% new' or '2 × 32'")
    parser.add_argument("--weights", type=float, nargs="+", help="of α or β, beside 0; all by default")
    parser.add_argument("--folder", type=Path, default=Path("worth"), help="where to work; what was done there counts")
    parser.add_argument("--minutes", type=float, default=60, help="when nothing new is begun")
    parser.add_argument("--processes", type=_positive, default=1, help="trainings at a time; they share the cores")
    parser.add_argument("--plot", type=Path, help="draw the differences to this PNG")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    prepare_training()
    try:
        base = load(options.experiment, options.settings)
        options.folder.mkdir(parents=True, exist_ok=True)
        trials = [
            each
            for each in trials_of(
                options.part, base, range(options.seeds), lambda: tenth_of_users(base, options.folder)
            )
            if (not options.only or each.situation in options.only)
            and (options.weights is None or each.weight in (0.0, *options.weights))
        ]
        if not trials:
            raise UserError("there is no such situation or weight", place="--only", cure="Leave it out to see all")
        there = run_all(trials, options.folder, options.processes, time.monotonic() + 60 * options.minutes)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    rows = rows_of(there, options.folder)
    show(rows, f"{base.name}, {options.part}", Console(width=160))
    if options.json:
        write_json(options.json, rows)
    if options.plot and any("ndcg_at_10_difference" in row for row in rows):
        write_bytes(options.plot, plot(options.part, rows))
    print(f"{len(there)} of {len(trials)} trainings are there", flush=True)
    return 0 if len(there) == len(trials) else 1


if __name__ == "__main__":
    sys.exit(main())
