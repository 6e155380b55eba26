"""A run: an experiment and what its stages have left in a folder, to look at, recommend by, measure and compare.

Knows what each stage leaves and what people ask of it; knows nothing of caches, tracking or servers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from prorec_core.alignment.trained import AlignedModel
from prorec_core.artifacts import new_folder, read_json
from prorec_core.config import Experiment
from prorec_core.data import split_table
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import FloatArray, read_embeddings
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError, did_you_mean
from prorec_core.evaluation.between import NAMES, differences, expect_same
from prorec_core.evaluation.comparable import data_differences
from prorec_core.evaluation.given import given_inputs, given_lists
from prorec_core.evaluation.given_table import SEED, table_in
from prorec_core.evaluation.measured import Evaluation
from prorec_core.evaluation.stage import evaluate as measure
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.in_common import in_common
from prorec_core.generation.recommender import Recommender, id_list
from prorec_core.generation.rules import Rule
from prorec_core.generation.trained import TrainedGenerator
from prorec_core.paths import path_of
from prorec_core.quantization.quantized import Quantized
from prorec_core.reports.code_tree import code_tree
from prorec_core.reports.data_plot import data_plot
from prorec_core.reports.drawing import Picture
from prorec_core.reports.plots import code_usage, curves_by_k, domination_bars, training_curves
from prorec_core.stages.bundle import fill_bundle
from prorec_core.stages.in_folder import StagesInFolder
from prorec_core.stages.inputs import held_back, read_new_quantized, read_quantized, read_texts
from prorec_core.training.runtime import make_runtime

_TRAININGS = ("train_collaborative", "align", "train_generator")
Plot = Literal["data", "training", "domination", "codes", "tree", "curves"]


def folder_of(given: str | Path) -> Path:
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
        return held_back(Dataset.load(self._stages.of("preprocess")), self.experiment)

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
        items, catalogue = self.dataset.all_items(), Catalogue.of_training(len(vectors), self.dataset.items.height)
        return Recommender.of(trained, items, codes, vectors, device, self.dataset.attributes, catalogue)

    def export(self, folder: str | Path) -> None:
        """Write the model as a folder of plain files that needs nothing else: `Recommender.load` reads it.

        Args:
            folder: not there yet, or empty; written whole or not at all.

        Raises:
            UserError: something is there, it cannot be written, or `train_generator` has not run.
        """
        with new_folder(folder_of(folder)) as beside:
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
        codes = self.codes.select(pl.exclude("item_id", "title")).to_numpy()
        texts = read_texts(self._stages.of("embed_text"))
        return in_common(item_ids, asked, had, self.codes["title"], codes, texts)

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
        self._expect_split(split)
        measured = self.evaluation.metrics[split]
        return pl.DataFrame([{"scorer": scorer, **values} for scorer, values in measured.items()])

    @cached_property
    def evaluation(self) -> Evaluation:
        """All that was measured: metrics, comparisons with intervals, every user's ranks and lists."""
        if not self._stages.is_done("evaluate"):
            self._stages.run("evaluate")
        return Evaluation.load(self._stages.of("evaluate"), lists=True)

    def measure(self, lists: pl.DataFrame | str | Path) -> Evaluation:
        """Measure lists that another program made, before the same targets and by the same rules as this run's.

        `split_table` writes what such a program may train on, and what it is asked.

        Args:
            lists: a table, or a file that holds one: split (validation, test), user_id, item_id, and rank (the best
                first) or else score (the greatest first); where users have several targets of a split (data.split),
                position too, the target's place in the user's sequence, from 0. With evaluate.mask_history what a user
                has is passed over. {seed} in a file's name stands for this run's seed.

        Returns:
            What was measured by the scorer `given`, and by popularity; `metrics["remarks"]` says what was passed over.

        Raises:
            UserError: the table cannot be read, or is about other users, items or targets.
        """
        config, data, seed = self.experiment.evaluate, self.dataset, self.experiment.seed
        if isinstance(lists, pl.DataFrame):
            table = RawTable.of_frame(lists, "lists")
        elif isinstance(lists, str | Path) and str(lists):
            table = table_in(path_of(str(lists).replace(SEED, str(seed))))
        else:
            raise UserError(
                f"a value of type {type(lists).__name__} is no table",
                place="lists",
                cure="Give a polars DataFrame (polars.from_pandas and from_arrow make one), or a file's path",
            )
        return measure(given_inputs(given_lists(table, data, config), data, config, seed))

    def against(
        self,
        other: Run | Evaluation,
        *,
        scorer: str | None = None,
        other_scorer: str | None = None,
        split: str = "test",
    ) -> pl.DataFrame:
        """What this run finds more, or less, than another, user by user.

        Args:
            other: another run of the same data, or what `measure` gave of lists.
            scorer: by which of this run's scorers; None: by which it recommends.
            other_scorer: by which of the other's; None: likewise.
            split: test or validation.

        Returns:
            One row a metric: metric, this, other, difference, and low and high, the ends of its 95% interval (paired
            bootstrap over users).

        Raises:
            UserError: there is no such scorer or split, or they were not measured on the same targets and by the same
                rules.
        """
        self._expect_split(split)
        if isinstance(other, Run):
            expect_same(data_differences(self.dataset, other.dataset, NAMES))
        theirs = other.evaluation if isinstance(other, Run) else other
        config = self.experiment.evaluate
        return differences(
            (self.evaluation, theirs), (scorer, other_scorer), split, config.bootstrap_samples, self.experiment.seed
        )

    def split_table(self) -> pl.DataFrame:
        """All interactions with what each is for, for another program to train on and be asked as this run is.

        Returns:
            One row an interaction: user_id, item_id, timestamp, position, split (`train`: what this run trains on;
            `history`: known before a target, and trained on by none; `validation`; `test`) and target, whether it is
            asked for after all that comes before it in the user's sequence. What is held out with new items
            (data.new_items) is not there.
        """
        return split_table.interactions(self.dataset)

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
            "domination": lambda: domination_bars(self.domination, neighbours=self.domination["neighbours"]),
            "codes": lambda: code_usage(self.quality["levels"]),
            "tree": lambda: code_tree(
                self.codes.select(pl.exclude("item_id", "title")).to_numpy(), self.dataset.all_items()["text"].to_list()
            ),
            "curves": lambda: curves_by_k(
                self.evaluation.test_ranks,
                self.evaluation.metrics["protocol"]["list_length"],
                self.evaluation.owners("test"),
                self.evaluation.ends,
            ),
        }
        if what not in drawn:
            raise UserError(f"there is no plot '{what}'", place="plot", cure=did_you_mean(str(what), drawn))
        return Picture(drawn[what]())

    @staticmethod
    def _expect_split(given: str) -> None:
        """Refuse a split that is not measured.

        Raises:
            UserError: it is none.
        """
        if given not in (known := ("test", "validation")):
            raise UserError(f"unknown split '{given}'", place="split", cure=did_you_mean(str(given), known))

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
