"""A trained generator that recommends to histories of item ids. Knows ids, titles and scores.

Knows nothing of training, tracking or servers. What it loads is a folder of plain files: model.safetensors,
config.json and training.json of the generator, codes.parquet, items.parquet and the quantized embeddings.parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from prorec_core.data.sequences import IntArray, Sequences, from_lists
from prorec_core.errors import UserError, did_you_mean
from prorec_core.generation.base import Generator
from prorec_core.generation.candidates import DENSE_CANDIDATES, Candidates, find_candidates
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.metrics.top import TopItems
from prorec_core.quantization.quantized import CodeTable

Rank = Callable[[Candidates, Sequences, int], tuple[IntArray, npt.NDArray[np.float32]]]
"""The k best of each history's candidates, and their scores."""


@dataclass(frozen=True)
class Recommendation:
    """One recommended item; `score` is a log-probability up to a constant, higher is better."""

    item_id: str
    title: str
    score: float


class Recommender:
    """Recommends items to histories, by the score that was best on validation."""

    def __init__(
        self, generator: Generator, items: pl.DataFrame, rank: Rank, beams: int, *, history_masked: bool = True
    ) -> None:
        self.generator = generator
        self.rank = rank
        self.beams = beams
        self.history_masked = history_masked
        self.item_ids: list[str] = items["item_id"].to_list()
        self.titles: list[str] = items["title"].to_list()
        self.item_id_column = pa.array(self.item_ids, pa.string())
        self.title_column = pa.array(self.titles, pa.string())
        self._index = {item_id: index for index, item_id in enumerate(self.item_ids)}
        counts = items["train_count"].to_numpy()
        self._popular = np.argsort(-counts, kind="stable").astype(np.int32)
        self._popular_scores = np.log((counts[self._popular] + 1) / (counts.sum() + len(counts))).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Recommender:
        """Read a bundle.

        Raises:
            UserError: a file of the bundle is missing or unreadable, or its parts do not belong together.
        """
        names = ("model.safetensors", "config.json", "codes.parquet", "items.parquet", "embeddings.parquet")
        for name in names:
            if not (folder / name).is_file():
                raise UserError("a file of the model is missing", place=str(folder / name), cure="Register it anew")
        trained = TrainedGenerator.load(folder)
        items = pl.DataFrame(pl.from_arrow(pq.read_table(folder / "items.parquet").replace_schema_metadata(None)))
        table = CodeTable.load(folder / "codes.parquet")
        if table.item_ids != items["item_id"].to_list():
            raise UserError("codes and items are of different catalogues", place=str(folder), cure="Register it anew")
        column = pq.read_table(folder / "embeddings.parquet").column("embedding").combine_chunks()
        embeddings = np.array(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
        embeddings = embeddings.reshape(-1, column.type.list_size)
        return cls.of(trained, items, table.codes, embeddings, torch.device(device))

    @classmethod
    def of(
        cls,
        trained: TrainedGenerator,
        items: pl.DataFrame,
        codes: npt.NDArray[np.uint16],
        embeddings: npt.NDArray[np.float32],
        device: torch.device,
    ) -> Recommender:
        """What a training left, ready to recommend; the last three as `restore_generator` takes them.

        Args:
            trained: what the stage left.
            items: item_id, title and train_count of every item.
            codes: the code table, uint16, shape (items, levels).
            embeddings: the embedding that was quantized, float32, shape (items, E).
            device: where it computes.
        """
        generator = restore_generator(trained, codes, embeddings, device)
        return cls(generator, items, _rank_of(trained), trained.beams, history_masked=trained.history_masked)

    def unknown(self, history: Sequence[str]) -> list[str]:
        """The item ids of a history that the catalogue lacks, in order, each once."""
        return [item_id for item_id in dict.fromkeys(history) if item_id not in self._index]

    def suggest(self, item_id: str) -> str:
        """The cure for an unknown item id: the nearest known one."""
        near = did_you_mean(item_id, self.item_ids)
        return near if near.startswith("Did") else "Look the id up in items.parquet"

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int = 10, *, mask_history: bool | None = None
    ) -> list[list[Recommendation]]:
        """The k best items for each history of item ids, oldest first; without those of the history if `mask_history`.

        None: as the model was measured.

        Unknown item ids are passed over (see `unknown`); a history without a known item gets what is popular.

        Raises:
            UserError: k is not positive.
        """
        known = [np.array([self._index[i] for i in history if i in self._index], np.int32) for history in histories]
        best = self.top(from_lists(known, len(self.item_ids)), k, mask_history=mask_history)
        return [
            [
                Recommendation(self.item_ids[item], self.titles[item], float(score))
                for item, score in zip(items, scores, strict=True)
                if item >= 0
            ]
            for items, scores in zip(best.items_UK, best.scores_UK, strict=True)
        ]

    def known(self, histories: pl.Series) -> Sequences:
        """Histories by the numbers of their items; item ids that the catalogue lacks are passed over.

        Args:
            histories: lists of item ids, none of them null.
        """
        lengths = histories.list.len()
        ids = histories.filter(lengths > 0).explode().to_list()
        # Joins and casts of columns look through the whole catalogue for each chunk; this costs what the chunk costs.
        items = np.fromiter(map(self._index.get, ids, repeat(-1)), np.int32, len(ids))
        users = np.repeat(np.arange(len(histories)), lengths.to_numpy())
        offsets = np.cumsum(np.bincount(users[items >= 0] + 1, minlength=len(histories) + 1), dtype=np.int64)
        return Sequences(items[items >= 0], offsets, len(self.item_ids))

    def top(self, histories: Sequences, k: int = 10, *, mask_history: bool | None = None) -> TopItems:
        """The k best items of each history by their numbers, or all items where there are fewer.

        An empty history gets what is popular. `mask_history` as of `recommend`.

        Raises:
            UserError: k is not positive.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, not {k}", place="k")
        k = min(k, len(self.item_ids))
        items = np.tile(self._popular[:k], (histories.n_users, 1))
        scores = np.tile(self._popular_scores[:k], (histories.n_users, 1))
        some = np.flatnonzero(np.diff(histories.offsets))
        masked = self.history_masked if mask_history is None else mask_history
        items[some], scores[some] = self._ranked(histories.select(some), k, masked)
        return TopItems(items, scores)

    def _ranked(self, histories: Sequences, k: int, mask_history: bool) -> tuple[IntArray, npt.NDArray[np.float32]]:
        found = find_candidates(
            self.generator, histories, max(self.beams, k), max(DENSE_CANDIDATES, k), masked=mask_history
        )
        return self.rank(found, histories, k)


def _rank_of(trained: TrainedGenerator) -> Rank:
    """How a trained generator's candidates are ranked: as validation chose."""
    ranker, weight = trained.ranker, trained.fusion_weight
    if trained.recommended == "ranked" and ranker is not None:
        return ranker.rank
    if trained.recommended == "fused" and weight is not None:
        return lambda found, _, k: found.fused(weight, k)
    return lambda found, _, k: found.generative(k)
