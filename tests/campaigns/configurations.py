"""Tiny pipelines of configurations drawn at random: each is refused in one line, or runs to results that can be.

Knows the choices of an experiment and what a result must look like; the stages' own bodies do the work, one after the
other in this process, without Prefect's or MLflow's servers. Texts are embedded by a fake, words as random directions,
and of most pipelines the figures are empty.

    python -m tests.campaigns.configurations --seconds 3600 --seed 0

draws until the time is up and prints its figures as JSON; `--only N` runs the N-th draw of a seed alone, with its
traceback. Exit status 1 if a pipeline did anything else than it may.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

if __name__ == "__main__":
    # Before anything imports them: two threads that wait for each other cost more than tiny tensors do.
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

import numpy as np

from prorec.flows.configuration.experiments import nested
from prorec_core.config import Experiment
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec.tasks.execution.stage import Stage, Work
    from prorec.tasks.tracking.mlflow_runs import TrackedRun
    from prorec_core.data.dataset import Dataset
    from prorec_core.generation.recommender import Recommender

BASE: dict[str, Any] = {
    "device": "cpu",
    "data.demo.users": 60,
    "data.demo.items": 40,
    "data.min_item_interactions": 2,
    "collaborative.dim": 8,
    "collaborative.layers": 1,
    "collaborative.epochs": 1,
    "align.epochs": 1,
    "quantize.codes": 4,
    "quantize.iterations": 5,
    "quantize.rq_vae.epochs": 3,
    "quantize.rq_vae.hidden": [8],
    "quantize.rq_vae.latent": 4,
    "generator.dim": 8,
    "generator.layers": 1,
    "generator.decoder_layers": 1,
    "generator.epochs": 1,
    "generator.validation_beams": 10,
    "evaluate.beams": 10,
    "evaluate.list_length": 10,
    "evaluate.bootstrap_samples": 100,
    "evaluate.examples": 1,
}
"""What makes a pipeline tiny; all else is as by default."""

CHOICES: dict[str, Sequence[Any]] = {
    "seed": range(5),
    "train_on_validation": [True],
    "data.demo.users": [50, 90, 150],
    "data.demo.items": [40, 41, 64, 80],
    "data.demo.seed": range(4),
    "data.min_item_interactions": [1, 3, 5],
    "data.min_user_interactions": [3, 4, 7],
    "data.duplicates": ["keep", "first"],
    "data.ties": ["shuffle"],
    "data.new_items": [0.05, 0.1, 0.3, 0.9],
    "data.new_items_seed": range(3),
    "collaborative.model": ["din"],
    "collaborative.dim": [4, 12, 16, 30],
    "collaborative.layers": [2, 3],
    "collaborative.heads": [1, 4, 8],
    "collaborative.attention_units": [1, 5],
    "collaborative.score": ["dot"],
    "collaborative.temperature": [1e-3, 1.0, 10.0],
    "collaborative.loss": ["binary_cross_entropy"],
    "collaborative.full_softmax_items": [0, 20],
    "collaborative.negatives": [1, 7, 5000],
    "collaborative.validation_users": [1, 7],
    "collaborative.epochs": [2, 3],
    "collaborative.tokens_per_batch": [16, 64, 4096],
    "collaborative.learning_rate": [1e-6, 0.1, 1.0],
    "collaborative.weight_decay": [0.0, 1.0],
    "collaborative.warmup_steps": [0, 1000],
    "collaborative.dropout": [0.0, 0.95],
    "collaborative.max_history": [1, 2, 5, 50],
    "collaborative.precision": ["float32"],
    "align.fusion": ["concat"],
    "align.alpha": [0.0, 1.0, 100.0],
    "align.temperature": [1e-3, 10.0],
    "align.align_items": [2, 9],
    "align.graph": [0.5, 10.0],
    "align.graph_window": [1, 7],
    "align.graph_neighbours": [1, 2],
    "align.validation_users": [1, 7],
    "align.start": ["scratch"],
    "align.epochs": [2],
    "align.max_history": [1, 3, 50],
    "align.learning_rate": [1e-6, 1.0],
    "align.tokens_per_batch": [16, 64],
    "align.dropout": [0.0, 0.9],
    "align.start_norm": [1e-3, 1.0, 100.0],
    "quantize.embedding": ["semantic", "collaborative", "concatenation"],
    "quantize.method": ["balanced_kmeans", "hierarchical_kmeans", "rq_vae"],
    "quantize.levels": [1, 2, 5, 16],
    "quantize.codes": [2, 3, 16, 64, 300],
    "quantize.iterations": [1],
    "quantize.collisions": ["reassign"],
    "quantize.rq_vae.hidden": [[], [16, 4]],
    "quantize.rq_vae.latent": [1, 8],
    "quantize.rq_vae.batch_size": [2, 4096],
    "quantize.rq_vae.learning_rate": [1.0],
    "quantize.rq_vae.commitment": [0.0, 10.0],
    "generator.architecture": ["encoder_decoder", "causal_encoder_decoder"],
    "generator.dim": [4, 12, 16, 30],
    "generator.layers": [2],
    "generator.decoder_layers": [2, 3],
    "generator.heads": [1, 4, 8],
    "generator.history": ["codes"],
    "generator.warm_start": [True],
    "generator.warm_start_rate": [0.001, 1.0],
    "generator.dense": ["head"],
    "generator.heads_from_codebooks": [False],
    "generator.trie_mask": [False],
    "generator.node_scores": [False],
    "generator.node_temperature": [1e-3, 10.0],
    "generator.label_smoothing": [0.1, 0.9],
    "generator.stage_one_state": [True],
    "generator.ranker": [False],
    "generator.ranker_weights": [[1.0, 0.5, 0.0, -1.0, 0.1]],
    "generator.distill.beta": [0.0, 1.0, 100.0],
    "generator.distill.at": ["summary"],
    "generator.distill.teacher": ["both"],
    "generator.distill.temperature": [1e-3, 10.0],
    "generator.distill.share": [1e-6, 1.0],
    "generator.distill.soft_targets": [0.5, 1.0],
    "generator.targets_per_user": [1, 50],
    "generator.validation_users": [1, 7],
    "generator.validation_beams": [11, 60],
    "generator.epochs": [2],
    "generator.tokens_per_batch": [16, 64],
    "generator.learning_rate": [1e-6, 1.0],
    "generator.dropout": [0.0, 0.9],
    "generator.max_history": [1, 3, 5, 60],
    "generator.patience": [1],
    "evaluate.beams": [11, 100],
    "evaluate.list_length": [11, 25, 100],
    "evaluate.mask_history": [False],
    "evaluate.fusion_weights": [[0.0], [2.0], [0.0, 1.0, 1000.0], [1.0, 1.0]],
    "evaluate.new_item_bonus": [0.7, 20.0],
    "evaluate.examples": [0, 100],
}
"""By field what it is drawn from where it is not left as it is: other choices, and the ends of ranges."""

_CHANGED = 0.12
"""Share of the fields that a draw changes, in the mean."""
_TOGETHER = 0.8
_DRAWN = 5
"""Every how manyth pipeline's figures are drawn."""
_TEXT_DIMENSIONS = 12
_READ = 2
"""The first stages of the pipeline, which are not made anew for each draw: data read, texts embedded."""
_K = 10


class WrongResultError(Exception):
    """A pipeline came to its end, and its result cannot be."""


@dataclass
class Figures:
    """What a campaign came to.

    Attributes:
        ended: how many draws ended how: `ran`, `refused by validation`, `refused by a stage`, `failed`, `wrong`.
        of_choices: by field and value in how many draws that ran it was.
        reasons: refusals by a stage, how often each.
        bad: the draws that did what none may: number, settings and what happened.
        seconds: of all.
    """

    ended: Counter[str] = field(default_factory=Counter)
    of_choices: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bad: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values; of the choices those that no draw ran with."""
        tried = [f"{name}={value}" for name, values in CHOICES.items() for value in values]
        return {
            "pipelines": sum(self.ended.values()),
            **self.ended,
            "seconds": round(self.seconds),
            "choices": len(tried),
            "choices that never ran": [each for each in tried if not self.of_choices[each]],
            "refusals by a stage": dict(self.reasons.most_common()),
            "bad": self.bad,
        }


def draw(seed: int, number: int) -> dict[str, Any]:
    """The settings of one draw, by dotted field: some fields changed, of each part of an experiment some."""
    chance = random.Random(f"{seed}/{number}")
    found = {name: chance.choice(list(values)) for name, values in CHOICES.items() if chance.random() < _CHANGED}
    if chance.random() < _TOGETHER:
        # What is refused whenever it comes alone would hardly ever run.
        if "train_on_validation" in found:
            found["evaluate.fusion_weights"] = chance.choice([[0.0], [2.0]])
        else:
            found.pop("generator.ranker_weights", None)
    return found


class Workspace:
    """Folders in which pipelines are made and thrown away; data sets are kept, since many draws share them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, Mapping[str, Path]] = {}

    def run(self, experiment: Experiment) -> None:
        """All stages of an experiment, and recommendations by what they leave.

        Raises:
            UserError: a stage refuses.
            WrongResultError: the result cannot be.
        """
        from prorec.tasks.stages.pipeline import STAGES

        inputs = dict(self._data(experiment))
        place = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            for stage in list(STAGES.values())[_READ:]:
                work = _work(stage, experiment, inputs, place / stage.name)
                _made(stage, work)
                inputs[stage.name] = work.folder
                if stage.name == "train_generator":
                    check_recommendations(work, place / "bundle")
            check_codes(inputs["quantize"])
            check_metrics(inputs["evaluate"], work.folder)
        finally:
            shutil.rmtree(place)

    def _data(self, experiment: Experiment) -> Mapping[str, Path]:
        from prorec.tasks.stages.pipeline import STAGES
        from prorec.tasks.stages.preprocess import preprocess
        from prorec_core.artifacts import write_json, write_manifest
        from prorec_core.data.dataset import Dataset
        from prorec_core.data.embeddings import write_embeddings

        key = experiment.data.model_dump_json()
        if key not in self._kept:
            place = Path(tempfile.mkdtemp(dir=self._folder))
            work = _work(preprocess, experiment, {}, place / "preprocess")
            _made(preprocess, work)
            texts = place / "embed_text"
            texts.mkdir()
            dataset = Dataset.load(work.folder)
            vectors = fake_embeddings(dataset.all_items()["text"].to_list())
            write_embeddings(texts / "embeddings.parquet", vectors[: dataset.items.height])
            if dataset.new_items is not None:
                write_embeddings(texts / "new_embeddings.parquet", vectors[dataset.items.height :])
            write_json(texts / "encoder.json", {"digest": "none", "max_tokens": experiment.text.max_tokens})
            write_manifest(texts, "embed_text", STAGES["embed_text"].values(experiment), {})
            self._kept[key] = {"preprocess": work.folder, "embed_text": texts}
        return self._kept[key]


def fake_embeddings(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """For each text the mean of its words' own random directions: alike where words are shared."""
    return np.stack(
        [
            np.mean(
                [
                    np.random.default_rng(zlib.crc32(word.encode())).normal(size=_TEXT_DIMENSIONS)
                    for word in text.split() or [""]
                ],
                axis=0,
            )
            for text in texts
        ]
    ).astype(np.float32)


def make_recommender(folder: Path) -> Recommender:
    """A model as it is served, of the tiny pipeline as it stands, made in an empty folder."""
    from prorec.tasks.stages.pipeline import STAGES
    from prorec_core.generation.recommender import Recommender
    from prorec_core.stages.bundle import fill_bundle

    experiment = Experiment.model_validate(nested(BASE))
    inputs = dict(Workspace(folder)._data(experiment))
    for stage in list(STAGES.values())[_READ:]:
        work = _work(stage, experiment, inputs, folder / stage.name)
        _made(stage, work)
        inputs[stage.name] = work.folder
        if stage.name == "train_generator":
            break
    fill_bundle(folder / "bundle", work)
    return Recommender.load(folder / "bundle")


@contextlib.contextmanager
def empty_pictures() -> Iterator[None]:
    """Have figures be made as ever, but saved as empty ones: drawing them takes nine tenths of a tiny pipeline."""
    from matplotlib.figure import Figure

    save = Figure.savefig

    def save_empty(figure: Figure, sink: Any, **options: Any) -> None:
        save(Figure(figsize=(1, 1)), sink, **options)

    with mock.patch.object(Figure, "savefig", save_empty):
        yield


def _made(stage: Stage, work: Work) -> None:
    """Have a stage leave its artifact, described as a run describes it."""
    from prorec_core.artifacts import write_manifest

    stage.body(work)
    write_manifest(work.folder, stage.name, work.config, {}, work.made_with)


def _work(stage: Stage, experiment: Experiment, inputs: Mapping[str, Path], folder: Path) -> Work:
    from prorec.tasks.execution.stage import Work
    from prorec_core.progress import silent

    folder.mkdir(parents=True)
    # No body asks for its run: only what publishes an artifact does.
    run = cast("TrackedRun", None)
    part, values = stage.part(experiment), stage.values(experiment)
    return Work(part, values, inputs, folder, folder.parent / "checkpoints", silent, run)


def check_codes(folder: Path) -> None:
    """Every item has a tuple of codes of its own, the new ones too."""
    from prorec_core.quantization.quantized import CodeTable

    files = [folder / name for name in ("codes.parquet", "new_codes.parquet")]
    codes = np.concatenate([CodeTable.load(file).codes for file in files if file.is_file()])
    if len(np.unique(codes, axis=0)) < len(codes):
        raise WrongResultError("two items share a tuple of codes")


def check_metrics(folder: Path, reported: Path) -> None:
    """Every number is finite, and shares lie within 0 and 1; and there is a report."""
    from prorec_core.artifacts import read_json

    metrics = read_json(folder / "metrics.json")
    shares = ("recall", "ndcg", "mrr", "coverage", "popularity_percentile")
    for path, value in _numbers(metrics):
        if not np.isfinite(value):
            raise WrongResultError(f"{path} is {value}")
        first, last = path.split(".")[0], path.split(".")[-1]
        if first in {"test", "validation"} and last.startswith(shares) and not 0 <= value <= 1:
            raise WrongResultError(f"{path} is {value}")
    if not (reported / "report.html").stat().st_size:
        raise WrongResultError("the report is empty")


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, f"{path}.{name}".removeprefix("."))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _numbers(inner, f"{path}.{place}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def check_recommendations(work: Work, bundle: Path) -> None:
    """The model as it is served: k different known items that a user lacks, as long as there are so many."""
    from prorec_core.data.dataset import Dataset
    from prorec_core.generation.recommender import Recommender
    from prorec_core.stages.bundle import fill_bundle

    fill_bundle(bundle, work)
    recommender = Recommender.load(bundle)
    histories = [*_histories(Dataset.load(work.inputs["preprocess"])), [], recommender.item_ids, ["no such item"]]
    for masked in (True, False):
        found = recommender.recommend(histories, _K, mask_history=masked)
        for history, best in zip(histories, found, strict=True):
            ids = [each.item_id for each in best]
            owned = set(history) if masked else set()
            wanted = min(_K, len(set(recommender.item_ids) - owned))
            if len(set(ids)) != len(ids) or not set(ids) <= set(recommender.item_ids) or owned & set(ids):
                raise WrongResultError(f"the list {ids} after {history}")
            if len(ids) != wanted:
                raise WrongResultError(f"{len(ids)} items instead of {wanted} after {len(history)}, masked: {masked}")
            if not all(np.isfinite(each.score) for each in best):
                raise WrongResultError(f"scores {[each.score for each in best]}")
            if any(first.score < second.score for first, second in itertools.pairwise(best)):
                raise WrongResultError(f"scores {[each.score for each in best]} are not in order")


def _histories(dataset: Dataset) -> list[list[str]]:
    ids, sequences = dataset.items["item_id"].to_list(), dataset.sequences
    ends = itertools.pairwise(sequences.offsets[:9])
    return [[ids[item] for item in sequences.items[start:end]] for start, end in ends]


def try_one(settings: Mapping[str, Any], workspace: Workspace) -> tuple[str, str]:
    """Run a pipeline with these settings; how it ended (see `Figures`), and why."""
    from pydantic import ValidationError

    from prorec.flows.configuration.experiments import explained

    try:
        experiment = Experiment.model_validate(nested({**BASE, **settings}))
    except ValidationError as error:
        message = str(explained(error, ""))
        return ("refused by validation" if message and len(message) < 2000 else "failed"), message
    try:
        workspace.run(experiment)
    except UserError as error:
        message = str(error)
        return ("refused by a stage" if "\n" not in message else "failed"), message
    except WrongResultError as error:
        return "wrong", str(error)
    except Exception:
        return "failed", traceback.format_exc()
    return "ran", ""


def campaign(seconds: float, seed: int, most: int | None = None, say: bool = False) -> Figures:
    """Draw and run pipelines until the time is up, or there were so many.

    Args:
        seconds: no draw begins after these.
        seed: of the draws.
        most: draws at most.
        say: tell each draw on standard error.
    """
    figures, began, number = Figures(), time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="prorec-campaign-") as folder:
        workspace = Workspace(Path(folder))
        while time.monotonic() - began < seconds and (most is None or number < most):
            settings = draw(seed, number)
            with contextlib.nullcontext() if number % _DRAWN == 0 else empty_pictures():
                how, why = try_one(settings, workspace)
            figures.ended[how] += 1
            if how == "ran":
                figures.of_choices.update(f"{name}={value}" for name, value in settings.items())
            if how == "refused by a stage":
                figures.reasons[why] += 1
            if how in {"failed", "wrong"}:
                figures.bad.append({"number": number, "settings": settings, "how": how, "why": why})
            if say:
                print(f"{number}: {how} {why.strip().splitlines()[-1] if why else ''}", file=sys.stderr, flush=True)
            number += 1
    figures.seconds = time.monotonic() - began
    return figures


def main() -> None:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one draw, run alone")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if chosen.only is not None:
        settings = draw(chosen.seed, chosen.only)
        print(json.dumps(settings, indent=1))
        with tempfile.TemporaryDirectory(prefix="prorec-campaign-") as folder:
            how, why = try_one(settings, Workspace(Path(folder)))
        print(how, why, sep="\n")
        sys.exit(how in {"failed", "wrong"})
    figures = campaign(chosen.seconds, chosen.seed, say=True)
    print(json.dumps(figures.as_json(), indent=1))
    sys.exit(bool(figures.bad))


if __name__ == "__main__":
    main()
