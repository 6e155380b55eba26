"""Implementations as small as they can be, for tests that add one to a registry and change nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Self, get_args

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec.tasks.execution.stage import Stage, Work, stage
from prorec.tasks.stages.pipeline import STAGES
from prorec_core.artifacts import ArtifactRef, write_json
from prorec_core.config import CollaborativeConfig, QuantizeConfig, Training
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.data.tables import RawTable
from prorec_core.generation.candidates import Candidates
from prorec_core.generation.ranker import fit_ranker
from prorec_core.metrics.measures import Values, hits_at_k
from prorec_core.metrics.scorers import SCORERS, Scorer
from prorec_core.metrics.table import METRICS, Metric, View
from prorec_core.metrics.top import TopItems, padded_histories, top_from_scores
from prorec_core.progress import Report, silent
from prorec_core.quantization.quantizer import Codes, Floats, Quantizer, State
from prorec_core.registry import ENCODERS, QUANTIZERS, SEQUENTIAL_MODELS, SOURCES
from prorec_core.sequential.base import Products, SequentialModel
from prorec_core.stages.inputs import read_dataset
from prorec_core.text.base import Encoder
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.sampling import MetItems


class Signs(Quantizer):
    """A level a dimension: 1 where the embedding is above the mean of all, else 0."""

    def __init__(self, means_D: Floats, levels: int) -> None:
        self.means_D, self.levels = means_D, levels

    @classmethod
    def fit(
        cls, embeddings_ND: Floats, config: QuantizeConfig, seed: int, report: Report = silent
    ) -> tuple[Self, Codes]:
        fitted = cls(embeddings_ND.mean(axis=0), config.levels)
        return fitted, fitted.encode(embeddings_ND)

    def encode(self, embeddings_ND: Floats) -> Codes:
        return (embeddings_ND > self.means_D)[:, : self.levels].astype(np.uint16)

    def decode(self, codes_Nl: Codes) -> Floats:
        found = np.tile(self.means_D, (len(codes_Nl), 1))
        found[:, : codes_Nl.shape[1]] += codes_Nl - np.float32(0.5)
        return found

    def state(self) -> State:
        return {"means": self.means_D, "levels": np.array([self.levels])}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(state["means"], int(state["levels"][0]))


class Letters(Encoder):
    """How often each letter occurs in a text."""

    @classmethod
    def digest(cls, config: TextConfig) -> str:
        return "a to z"

    @classmethod
    def open(cls, config: TextConfig, device: str) -> Self:
        return cls()

    def encode(self, item_ids: list[str], texts: list[str], report: Report) -> Floats:
        letters = "abcdefghijklmnopqrstuvwxyz"
        return np.array([[text.count(letter) for letter in letters] for text in texts], np.float32)


class LastItem(SequentialModel):
    """What is next is what is like the latest item."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    @classmethod
    def build(cls, config: CollaborativeConfig, training: Training, table_dim: int, low_precision: bool) -> Self:
        return cls()

    def _states(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        return F.embedding(batch.items_BL, table_ND) * self.scale

    def training_loss(self, table_ND: Tensor, batch: HistoryBatch, met: MetItems | None = None) -> Tensor:
        assert batch.targets_BL is not None
        real = batch.targets_BL >= 0
        logits = self._states(table_ND, batch)[real] @ table_ND.t()
        return F.cross_entropy(logits if met is None else logits + met.log_weights_R, batch.targets_BL[real])

    def scores(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        return batch.last(self._states(table_ND, batch)) @ table_ND.t()

    def products(self, table_ND: Tensor) -> Products:
        return Products(table_ND, lambda batch, rows, columns: self._states(table_ND, batch)[rows, columns], math.inf)


class Rows:
    """A shop of two shelves, held in memory: whoever begins at one stays there."""

    USERS, ITEMS = 60, 24

    def interactions(self) -> RawTable:
        random = np.random.default_rng(0)
        rows = [
            (f"u{user}", f"i{item}", time)
            for user in range(self.USERS)
            for time, item in enumerate(2 * random.permutation(self.ITEMS // 2)[:8] + user % 2)
        ]
        return RawTable.of_frame(pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row"), "the rows")

    def items(self) -> RawTable:
        titles = [f"{'tea' if item % 2 else 'coffee'} number {item}" for item in range(self.ITEMS)]
        frame = pl.DataFrame({"item_id": [f"i{item}" for item in range(self.ITEMS)], "title": titles})
        return RawTable.of_frame(frame.with_columns(categories=pl.lit("drinks")), "the items")

    def facts(self) -> dict[str, Any]:
        return {"shelves": 2}

    def digest(self) -> str:
        return "two shelves"


def rows(config: DataConfig) -> Rows:
    """A source."""
    del config
    return Rows()


def steep(ranks: IntArray, k: int) -> Values:
    """A metric: 1 / rank² of a target among the first k."""
    return hits_at_k(ranks, k) / np.maximum(ranks, 1) ** 2.0


def by_number(training: Sequences, histories: Sequences, k: int, *, masked: bool) -> TopItems:
    """A scorer: the items in the order of their numbers."""
    scores = -np.arange(training.n_items, dtype=np.float32)
    taken = torch.from_numpy(padded_histories(histories)) if masked else None
    return top_from_scores(torch.from_numpy(np.tile(scores, (histories.n_users, 1))), k, taken)


@stage("lengths", reads=("preprocess",), config=("train_on_validation",), libraries=("numpy",))
def lengths(work: Work) -> dict[str, float]:
    """A stage: how long histories are."""
    found = np.diff(read_dataset(work).sequences.offsets)
    write_json(work.folder / "lengths.json", found.tolist())
    return {"longest": float(found.max())}


def register() -> None:
    """Add all of them: one line each, as each would have in the project."""
    SOURCES.places["rows"] = "tests.toys:rows"
    ENCODERS.places["letters"] = "tests.toys:Letters"
    QUANTIZERS.places["signs"] = "tests.toys:Signs"
    SEQUENTIAL_MODELS.places["last_item"] = "tests.toys:LastItem"
    everywhere: dict[View, tuple[int, ...]] = dict.fromkeys(get_args(View), (10,))
    METRICS["steep"] = Metric(
        "Steep gain", "what counts is to be first", steep, cutoffs=(10,), compared=(10,), shown=everywhere
    )
    SCORERS["by_number"] = Scorer("by number", "the lowest first", counts="tests.toys:by_number", everywhere=True)
    STAGES["lengths"] = lengths


def looked_at(patch: pytest.MonkeyPatch, module: str) -> list[Candidates]:
    """The candidates over which rankers are fitted from now on in a module that fits them."""
    seen = list[Candidates]()

    def fit(candidates: Candidates, *arguments: Any, **named: Any) -> Any:
        seen.append(candidates)
        return fit_ranker(candidates, *arguments, **named)

    patch.setattr(f"{module}.fit_ranker", fit)
    return seen


def noting(made: list[str]) -> Callable[..., ArtifactRef]:
    """What makes stages, and only notes their names."""

    def make(stage: Stage, *_: object) -> ArtifactRef:
        made.append(stage.name)
        return ArtifactRef(stage=stage.name, digest="d", run_id="r", uri="/u")

    return make
