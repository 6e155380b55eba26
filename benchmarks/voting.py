"""What several trainings find together: `python -m benchmarks.voting [EXPERIMENT] [--set FIELD=VALUE] [--seeds 3]`.

`[--folder WORK] [--json FILE]`

The full method is trained with each seed, code table included. Then all judge the union of what each has found, and
each score is the mean over them of an item's probability. λ and the ranker are chosen on validation users for one
training and for all together alike. That costs as many trainings and searches as there are seeds: it says what is left
in the method, and is no model to be served.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from prorec.flows.configuration.experiments import changed, load
from prorec.flows.local.running import prepare_training
from prorec_core import api
from prorec_core.artifacts import write_json
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.errors import UserError
from prorec_core.generation.base import Generator
from prorec_core.generation.candidates import (
    DENSE_CANDIDATES,
    Candidates,
    dense_scores,
    find_candidates,
    item_log_probabilities,
    last_context,
)
from prorec_core.generation.choice import best_trial, fusion_trials
from prorec_core.generation.ranker import fit_ranker
from prorec_core.generation.relations import Relations
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.metrics.measures import ndcg_at_k
from prorec_core.metrics.top import rank_of_target
from prorec_core.quantization.quantized import Quantized
from prorec_core.stages.inputs import read_quantized, read_texts
from prorec_core.training.batching import inference_batches

Floats = npt.NDArray[np.float32]
Scores = dict[Split, list[tuple[Floats, Floats]]]
_TOKENS, _USERS = 16_384, 256
_K = 10
SCORES = ("dense", "generative", "fused", "ranked")


def generator_of(folders: Mapping[str, Path]) -> Generator:
    """A training's generator, on the CPU."""
    trained, codes = TrainedGenerator.load(folders["train_generator"]), Quantized.load(folders["quantize"]).table.codes
    return restore_generator(trained, codes, read_quantized("integrated", folders), torch.device("cpu"))


def union(found: Sequence[IntArray]) -> IntArray:
    """All items that any of several lists has for a user, once each, int32, shape (U, C), -1 behind them."""
    rows = [np.unique(np.concatenate(row)) for row in zip(*found, strict=True)]
    rows = [row[row >= 0] for row in rows]
    items_UC = np.full((len(rows), max(1, *map(len, rows))), -1, np.int32)
    for row, items in zip(items_UC, rows, strict=True):
        row[: len(items)] = items
    return items_UC


@torch.no_grad()
def judged(generator: Generator, histories: Sequences, items_UC: IntArray) -> tuple[Floats, Floats]:
    """Log-probabilities of some items by the generator and by its dense score, float32, shape (U, C) each."""
    generative, dense = (np.full(items_UC.shape, -np.inf, np.float32) for _ in range(2))
    whole = dense_scores(generator)
    assert whole is not None
    for batch in inference_batches(
        histories, generator.config.max_history, _TOKENS, _USERS, generator.inputs_NE.device
    ):
        users = batch.users_B.numpy()
        context, asked = last_context(generator, batch), torch.from_numpy(items_UC[users]).long()
        generative[users] = item_log_probabilities(generator, context, asked).numpy()
        scores = whole(context, batch).log_softmax(-1).gather(1, asked.clamp(min=0))
        dense[users] = scores.masked_fill(asked < 0, -torch.inf).numpy()
    return generative, dense


def mean_of(log_p: Sequence[Floats]) -> Floats:
    """The log of the mean of some probabilities."""
    found: Floats = (np.logaddexp.reduce(np.stack(log_p).astype(np.float64)) - np.log(len(log_p))).astype(np.float32)
    return found


def vote(trainings: Sequence[Mapping[str, Path]], weights: Sequence[float], beams: int) -> list[dict[str, Any]]:
    """Measure each training by itself, over what all have found, and all together.

    Args:
        trainings: by stage the folder of what it left; the data and the texts are the same.
        weights: λ to choose from.
        beams: of each search.

    Returns:
        One row each, the last of all together: `who`, `weight`, `network`, and for each of SCORES `recall_at_10` and
        `ndcg_at_10` on test, and `validation`, the NDCG@10 there.
    """
    dataset = Dataset.load(trainings[0]["preprocess"])
    generators = [generator_of(each) for each in trainings]
    relations = Relations.of(dataset.sequences.training(), read_texts(trainings[0]["embed_text"]))
    asked = {split: _asked(dataset, split) for split in (Split.VALIDATION, Split.TEST)}
    items, scores = dict[Split, IntArray](), Scores()
    for split, (histories, _) in asked.items():
        items[split] = union(
            [
                find_candidates(each, histories, beams, DENSE_CANDIDATES, near=relations.near).items_UC
                for each in generators
            ]
        )
        scores[split] = [judged(each, histories, items[split]) for each in generators]
        print(f"{split.name.lower()}: {len(items[split]):,} users, {items[split].shape[1]} candidates", flush=True)
    voters = [*([place] for place in range(len(generators))), list(range(len(generators)))]
    rows = []
    for who in voters:
        found = {}
        for split in asked:
            generative, dense = (mean_of([scores[split][place][kind] for place in who]) for kind in range(2))
            found[split] = Candidates(items[split], generative, dense, items[split].shape[1])
        rows.append({"who": who, **_measured(found, asked, weights, relations)})
    return rows


def _asked(dataset: Dataset, split: Split) -> tuple[Sequences, IntArray]:
    sequences = dataset.sequences
    rows = sequences.answerable(split)
    return sequences.histories(split).select(rows), sequences.targets(split)[rows]


def _measured(
    found: Mapping[Split, Candidates],
    asked: Mapping[Split, tuple[Sequences, IntArray]],
    weights: Sequence[float],
    relations: Relations,
) -> dict[str, Any]:
    weight, _ = best_trial(fusion_trials(found[Split.VALIDATION], asked[Split.VALIDATION][1], weights))
    ranker, about = fit_ranker(found[Split.VALIDATION], *asked[Split.VALIDATION], relations)
    row: dict[str, Any] = {"weight": weight, "network": about["network"]}
    for split, (histories, targets) in asked.items():
        candidates, validates = found[split], split is Split.VALIDATION
        rank = ranker.rank_held_out if validates else ranker.rank
        lists = (
            candidates.dense(_K)[0],
            candidates.generative(_K)[0],
            candidates.fused(weight, _K)[0],
            rank(candidates, histories, _K)[0],
        )
        for name, items_UK in zip(SCORES, lists, strict=True):
            ranks = rank_of_target(items_UK, targets)
            ndcg, figures = round(float(ndcg_at_k(ranks, _K)), 6), row.setdefault(name, {})
            if validates:
                figures["validation"] = ndcg
            else:
                figures |= {"recall_at_10": round(float((ranks > 0).mean()), 6), "ndcg_at_10": ndcg}
    return row


def trained(base: Experiment, seeds: int, folder: Path) -> list[dict[str, Path]]:
    """The folders of a training a seed; what is there already is not made again."""
    found = []
    for seed in range(seeds):
        run = api.train(changed(base, {"seed": seed}, "--seeds"), folder / f"seed-{seed}", until="train_generator")
        found.append({each.name: each for each in run.folder.iterdir() if each.is_dir()})
    return found


def show(rows: Sequence[Mapping[str, Any]], title: str, console: Console) -> None:
    """Print the table."""
    table = Table("seeds", *(f"{name}: R@10 / N@10 (validation)" for name in SCORES), "λ", title=title)
    for row in rows:
        cells = [
            f"{row[name]['recall_at_10']:.4f} / {row[name]['ndcg_at_10']:.4f} ({row[name]['validation']:.4f})"
            for name in SCORES
        ]
        table.add_row(", ".join(map(str, row["who"])), *cells, f"{row['weight']:g}")
    console.print(table)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.voting", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", nargs="?", default="demo", help="a preset or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="settings")
    parser.add_argument("--seeds", type=int, default=3, choices=range(2, 11), metavar="N", help="how many, from 0")
    parser.add_argument("--folder", type=Path, default=Path("voting"), help="where to work; what was done there counts")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    prepare_training()
    try:
        base = load(options.experiment, options.settings)
        if not base.evaluate.mask_history or base.generator.dense != "stage_one":
            raise UserError("voting is measured where histories are masked and the dense score is Stage I's")
        folders = trained(base, options.seeds, options.folder)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    rows = vote(folders, base.evaluate.fusion_weights, base.evaluate.beams)
    show(rows, f"{base.name}: {options.seeds} trainings and all together, test", Console(width=180))
    if options.json:
        write_json(options.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
