"""PRORec in a notebook or a script: read data, train, look at what came of it, recommend, evaluate.

Knows what each stage leaves in one folder and what people ask of it; knows nothing of caches, tracking or servers. The
same experiment leaves the same files as `prorec run`, which runs the same bodies.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import ValidationError

from prorec_core.alignment.trained import AlignedModel
from prorec_core.artifacts import new_folder, read_json
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import FloatArray, read_embeddings
from prorec_core.data.files import path_of
from prorec_core.data.stage import preprocess
from prorec_core.errors import UserError, did_you_mean
from prorec_core.evaluation.measured import Evaluation
from prorec_core.generation.recommender import Recommender, id_list
from prorec_core.generation.rules import Rule
from prorec_core.generation.trained import TrainedGenerator
from prorec_core.quantization.quantized import Quantized
from prorec_core.reports.code_tree import code_tree
from prorec_core.reports.data_plot import data_plot
from prorec_core.reports.drawing import Picture
from prorec_core.reports.plots import code_usage, curves_by_k, domination_bars, training_curves
from prorec_core.stages.bundle import fill_bundle
from prorec_core.stages.in_folder import StagesInFolder, Tell, read_experiment
from prorec_core.stages.inputs import read_new_quantized, read_quantized, read_texts
from prorec_core.training.runtime import make_runtime

_TRAININGS = ("train_collaborative", "align", "train_generator")
Plot = Literal["data", "training", "domination", "codes", "tree", "curves"]


def load_data(experiment: Experiment) -> Dataset:
    """Read the data of an experiment as training would, filtered and in order of time, and keep nothing.

    Args:
        experiment: its section `data` says where the data are; `Experiment()` is the built-in shop.

    Raises:
        UserError: files, columns or values that cannot be used, or nothing left after filtering.
    """
    return preprocess(_checked(experiment).data)


def train(
    experiment: Experiment,
    folder: str | Path | None = None,
    *,
    until: str = "train_generator",
    tell: Tell | None = None,
    quiet: bool = False,
) -> Run:
    """Run the stages of an experiment in this process, one after the other.

    In a folder that holds finished stages of the same experiment these are taken as they are, and a training that was
    stopped goes on from its last epoch. Nothing tells here that code or libraries have changed since: the cache of
    `prorec run` does. Of several threads that train in one process, each waits for the other's stage: a stage draws
    from torch's generators, which are the caller's again when it is done.

    Args:
        experiment: what is trained.
        folder: where each stage leaves its files, in a folder of its name; by default one that is removed with the
            `Run`.
        until: the last stage: preprocess, embed_text, train_collaborative, align, quantize, train_generator, evaluate.
        tell: called with the name of a stage and its `Progress` after each epoch or step.
        quiet: print neither progress nor remarks.

    Raises:
        UserError: a mistake in the experiment or its data; a folder that holds another experiment or other things
            under the name of a stage, or data that have changed since; another process that trains in the folder.
    """
    experiment = _checked(experiment)
    if folder is not None:
        run = Run(StagesInFolder(_folder(folder), experiment, tell, quiet=quiet))
    else:
        scratch = tempfile.TemporaryDirectory(prefix="prorec-")
        run = Run(StagesInFolder(Path(scratch.name), experiment, tell, quiet=quiet), scratch)
    run.train(until)
    return run


def open_run(folder: str | Path, device: str | None = None) -> Run:
    """What `train` left in a folder.

    Args:
        folder: where it is.
        device: where to compute from now on: auto, cpu, cuda, cuda:N or mps; by default as it was trained.

    Raises:
        UserError: there is no experiment, a newer version of this software wrote it, or the device is none.
    """
    place = _folder(folder)
    found = read_experiment(place)
    if device is not None:
        found = _checked(found.model_copy(update={"device": device}))
    return Run(StagesInFolder(place, found))


def _folder(given: str | Path) -> Path:
    """The folder of a training, wherever the process goes later.

    Raises:
        UserError: it is none.
    """
    if not isinstance(given, str | Path) or not str(given):
        raise UserError(f"{given!r} is no folder", place="folder", cure="Give the path of one, or leave it out")
    place = path_of(str(given)).absolute()
    if place.exists() and not place.is_dir():
        raise UserError("this is a file, not a folder", place=str(given), cure="Give the path of a folder")
    return place


def _checked(given: Experiment) -> Experiment:
    """The experiment, looked at once more: a copy of one may have been given what it cannot have.

    Raises:
        UserError: it has, or is none.
    """
    if not isinstance(given, Experiment):
        raise UserError(f"this is no Experiment but of type {type(given).__name__}", cure="Give Experiment(…)")
    # What it was given that no experiment has stands beside its fields.
    values = {**vars(given), **given.model_dump(warnings=False)}
    try:
        found = Experiment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(first["msg"], place=".".join(map(str, first["loc"])), cure="Correct it") from None
    return given if found == given else found


class Run:
    """An experiment and what its stages have left in a folder; what is asked for is read from there.

    `train` and `open_run` make one.

    Args:
        stages: the stages and their folder.
        scratch: what is to live as long as this.
    """

    def __init__(self, stages: StagesInFolder, scratch: object = None) -> None:
        self._stages = stages
        self._scratch = scratch

    def __repr__(self) -> str:
        experiment, done = self.experiment, ", ".join(self._stages.inputs)
        return f"Run({experiment.name!r}, seed {experiment.seed}: {done or 'nothing yet'})"

    @property
    def experiment(self) -> Experiment:
        """What was trained."""
        return self._stages.experiment

    @property
    def folder(self) -> Path:
        """Holds a folder a stage, each with plain files and a manifest."""
        return self._stages.folder

    def train(self, until: str = "train_generator") -> None:
        """Run the stages that are not there yet, up to one; as the function `train` does."""
        self._stages.run(until)

    @cached_property
    def dataset(self) -> Dataset:
        """Items, users and everyone's items in order of time, as the stages read them."""
        return Dataset.load(self._stages.of("preprocess"))

    @cached_property
    def codes(self) -> pl.DataFrame:
        """One row an item: item_id, title (strings), and its tuple code_0, code_1 … (uint16)."""
        table = Quantized.load(self._stages.of("quantize")).all_items()
        levels = {f"code_{level}": codes for level, codes in enumerate(table.codes.T)}
        return pl.DataFrame({"item_id": table.item_ids, "title": self.dataset.all_items()["title"], **levels})

    @cached_property
    def embeddings(self) -> dict[str, FloatArray]:
        """Item embeddings, float32, row i for item i of `dataset.items`.

        `text` is E_S, `collaborative` what `train_collaborative` learned, `adapted` E_T, `aligned_collaborative` E_C
        after aligning, `integrated` E_I.
        """
        aligned = AlignedModel.load(self._stages.of("align"))

        def table(stage: str) -> FloatArray:
            return read_embeddings(self._stages.of(stage) / "embeddings.parquet", stage)

        return {
            "text": table("embed_text"),
            "collaborative": table("train_collaborative"),
            "adapted": aligned.semantic,
            "aligned_collaborative": aligned.collaborative,
            "integrated": aligned.integrated,
        }

    @property
    def domination(self) -> dict[str, Any]:
        """How much each embedding shares with the text and with behaviour: what `metrics.domination` gives."""
        return dict(read_json(self._stages.of("align") / "domination.json"))

    @property
    def quality(self) -> dict[str, Any]:
        """Use of each code level, collisions, reconstruction error: `quality` of `Quantized`."""
        return dict(read_json(self._stages.of("quantize") / "quality.json"))

    @property
    def training(self) -> dict[str, list[dict[str, Any]]]:
        """By stage that trains, one record an epoch: losses, and NDCG@10 on validation users."""
        done = self._stages.inputs
        return {name: list(read_json(done[name] / "training.json")["epochs"]) for name in _TRAININGS if name in done}

    @property
    def remarks(self) -> list[str]:
        """What one should know of the data and of what was trained, a sentence each."""
        return self._stages.remarks

    @cached_property
    def recommender(self) -> Recommender:
        """The trained model; `recommend` of it takes many histories at once."""
        trained = TrainedGenerator.load(self._stages.of("train_generator"))
        inputs, embedding = self._stages.inputs, self.experiment.quantize.embedding
        codes, vectors = Quantized.load(inputs["quantize"]).all_items().codes, read_quantized(embedding, inputs)
        if self.dataset.new_items is not None:
            vectors = np.concatenate([vectors, read_new_quantized(embedding, inputs)])
        device = make_runtime(self.experiment.device).device
        return Recommender.of(trained, self.dataset.all_items(), codes, vectors, device, self.dataset.attributes)

    def export(self, folder: str | Path) -> None:
        """Write the model as a folder of plain files that needs nothing else: `Recommender.load` reads it.

        Args:
            folder: not there yet, or empty; written whole or not at all.

        Raises:
            UserError: something is there, it cannot be written, or `train_generator` has not run.
        """
        with new_folder(_folder(folder)) as beside:
            fill_bundle(beside, self._stages.work_of("train_generator"))

    def recommend(
        self, history: Sequence[str], k: int = 10, *, mask_history: bool | None = None, rule: Rule | None = None
    ) -> pl.DataFrame:
        """The k best items for somebody with a history.

        Args:
            history: item ids, the oldest first; an empty one gets what is popular.
            k: items.
            mask_history: leave out what the history holds; None: as the model was measured.
            rule: what may be recommended; None: all.

        Returns:
            One row an item, the best first: rank from 1, item_id, title, score (a log-probability up to a constant);
            fewer than k rows where the catalogue has no more.

        Raises:
            UserError: an item id that the catalogue lacks or that is no text, k is not a positive whole number, or the
                rule cannot be asked of this catalogue or leaves nothing.
        """
        history = id_list(history, "history")
        self._places(history)
        (found,) = self.recommender.recommend([history], k, mask_history=mask_history, rules=[rule])
        return pl.DataFrame(
            {
                "rank": range(1, len(found) + 1),
                "item_id": [each.item_id for each in found],
                "title": [each.title for each in found],
                "score": [each.score for each in found],
            },
            schema={"rank": pl.Int64, "item_id": pl.String, "title": pl.String, "score": pl.Float64},
        )

    def in_common(self, item_ids: Sequence[str], history: Sequence[str]) -> pl.DataFrame:
        """What items share with a history: the item of it that is nearest by codes, and the one of nearest text.

        It tells what is alike, not how the model came to its choice.

        Args:
            item_ids: for instance those of `recommend`.
            history: item ids.

        Returns:
            One row an item: item_id, shared_codes (leading codes that are equal), by_codes (title of that item of the
            history, null where not even the first code is shared), by_text (title) and text_similarity (cosine).

        Raises:
            UserError: an item id that the catalogue lacks or that is no text, or a history without items.
        """
        item_ids, history = id_list(item_ids, "item_ids"), id_list(history, "history")
        asked, had = self._places(item_ids), self._places(history)
        if not had:
            raise UserError("a history without items shares nothing", place="history", cure="Give at least one item id")
        titles = dict(zip(had, self.codes["title"].gather(had), strict=True))
        codes = self.codes.select(pl.exclude("item_id", "title")).to_numpy()
        equal = (codes[asked][:, None] == codes[had][None]).cumprod(axis=2).sum(axis=2)
        texts = read_texts(self._stages.of("embed_text"))
        own, theirs = (_normalised(texts[places]) for places in (asked, had))
        similar = own @ theirs.T
        nearest, shared = equal.argmax(axis=1), equal.max(axis=1)
        return pl.DataFrame(
            {
                "item_id": item_ids,
                "shared_codes": shared,
                "by_codes": [titles[had[at]] if n else None for at, n in zip(nearest, shared, strict=True)],
                "by_text": [titles[had[at]] for at in similar.argmax(axis=1)],
                "text_similarity": similar.max(axis=1),
            },
            schema_overrides={"item_id": pl.String, "shared_codes": pl.Int64, "by_codes": pl.String},
        )

    def evaluate(self, split: str = "test") -> pl.DataFrame:
        """Measure every scorer over the whole catalogue, the stage `evaluate`; made once, read from then on.

        Args:
            split: test or validation.

        Returns:
            One row a scorer: scorer, and its metrics, as recall_at_10 and ndcg_at_10, in the order of the names.
            Which one recommends says `evaluation.metrics["recommended"]`.

        Raises:
            UserError: there is no such split; or whatever training may raise, where it was not measured yet.
        """
        if split not in (known := ("test", "validation")):
            raise UserError(f"unknown split '{split}'", place="split", cure=did_you_mean(str(split), known))
        measured = self.evaluation.metrics[split]
        return pl.DataFrame([{"scorer": scorer, **values} for scorer, values in measured.items()])

    @cached_property
    def evaluation(self) -> Evaluation:
        """All that was measured: metrics, comparisons with intervals, every user's ranks and lists."""
        if not self._stages.is_done("evaluate"):
            self._stages.run("evaluate")
        return Evaluation.load(self._stages.of("evaluate"), lists=True)

    def plot(self, what: Plot) -> Picture:
        """Draw something of the run; a notebook shows it.

        Args:
            what: data (lengths of histories, use of items), training (curves by epoch), domination (what embeddings
                share with text and with behaviour), codes (use of each level), tree (the items below each code),
                curves (recall and NDCG by length of list).

        Raises:
            UserError: there is no such plot, or the stage that it shows has not run.
        """
        drawn: dict[str, Callable[[], Any]] = {
            "data": lambda: data_plot(self.dataset.sequences),
            "training": lambda: training_curves(self.training),
            "domination": lambda: domination_bars(self.domination),
            "codes": lambda: code_usage(self.quality["levels"]),
            "tree": lambda: code_tree(
                self.codes.select(pl.exclude("item_id", "title")).to_numpy(), self.dataset.all_items()["text"].to_list()
            ),
            "curves": lambda: curves_by_k(
                self.evaluation.test_ranks,
                self.evaluation.metrics["protocol"]["list_length"],
                self.evaluation.owners("test"),
            ),
        }
        if what not in drawn:
            raise UserError(f"there is no plot '{what}'", place="plot", cure=did_you_mean(str(what), drawn))
        return Picture(drawn[what]())

    @cached_property
    def _place(self) -> dict[str, int]:
        return {item_id: place for place, item_id in enumerate(self.dataset.all_items()["item_id"])}

    def _places(self, item_ids: Sequence[str]) -> list[int]:
        """Rows of items in what holds them all.

        Raises:
            UserError: the catalogue lacks one.
        """
        for item_id in item_ids:
            if item_id not in self._place:
                raise UserError(f"unknown item id '{item_id}'", cure=did_you_mean(item_id, self._place))
        return [self._place[item_id] for item_id in item_ids]


def _normalised(vectors: FloatArray) -> FloatArray:
    """Rows of length one; rows of zeros stay."""
    found: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found
