"""A trained generator that recommends to histories of item ids. Knows ids, titles and scores.

Knows nothing of training, tracking or servers. What it loads is a folder of plain files (`Bundle`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import torch

from prorec_core.data.conditions import Attributes, Mask
from prorec_core.data.sequences import IntArray, Sequences, from_lists
from prorec_core.errors import UserError, did_you_mean
from prorec_core.generation.allowed import AllowedItems, Rules
from prorec_core.generation.base import Generator
from prorec_core.generation.bundle import Bundle
from prorec_core.generation.candidates import DENSE_CANDIDATES, Candidates, DenseScores, dense_scores, find_candidates
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.look import Look
from prorec_core.generation.relations import Relations, near_of
from prorec_core.generation.rule_book import RuleBook
from prorec_core.generation.rules import Rule
from prorec_core.generation.scoring import Ranked, Scoring, scorings_of
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.generation.words import CodeWords
from prorec_core.metrics.top import TopItems
from prorec_core.training.runtime import make_runtime


@dataclass(frozen=True)
class Recommendation:
    """One recommended item; `score` is a log-probability up to a constant, higher is better."""

    item_id: str
    title: str
    score: float


def id_list(given: Iterable[str], place: str) -> list[str]:
    """Item ids that somebody gave in whatever holds them.

    Args:
        given: a list, a column, or anything that is gone through once.
        place: what it was given as, for the error.

    Raises:
        UserError: it holds no ids, or some that are no texts.
    """
    if isinstance(given, str):
        raise UserError("one text stands where a list of item ids should", place=place, cure=f"Write ['{given}']")
    try:
        found = list(given)
    except TypeError:
        kind = type(given).__name__
        raise UserError(f"of type {kind}, not a list of item ids", place=place, cure="Give a list of texts") from None
    for each in found:
        if not isinstance(each, str):
            kind = type(each).__name__
            raise UserError(f"item ids are texts, and {each!r} is of type {kind}", place=place, cure="Write str(id)")
    return found


class Recommender:
    """Recommends items to histories, by the score that was best on validation."""

    def __init__(
        self,
        generator: Generator,
        items: pl.DataFrame,
        scoring: Scoring,
        beams: int,
        attributes: pl.DataFrame | None = None,
        others: Sequence[Scoring] = (),
        catalogue: Catalogue | None = None,
        *,
        history_masked: bool = True,
    ) -> None:
        """
        Args:
            generator: in evaluation mode.
            items: item_id, title and train_count of its items, in their order.
            scoring: what recommends.
            beams: of the search.
            attributes: columns kept for rules.
            others: scores that are there too, for whoever would compare.
            catalogue: what came later and what was withdrawn; None: nothing.
            history_masked: whether it was measured without what a history has.
        """
        self.generator = generator
        self.scoring = scoring
        self.others = others
        self.beams = beams
        self.catalogue = catalogue or Catalogue.of_training(items.height)
        self.history_masked = history_masked
        self.item_ids: list[str] = items["item_id"].to_list()
        self.titles: list[str] = items["title"].to_list()
        self.item_id_column = pa.array(self.item_ids, pa.string())
        self.title_column = pa.array(self.titles, pa.string())
        gone = self.catalogue.withdrawn
        self.withdrawn = {item_id for item_id, out in zip(self.item_ids, gone, strict=True) if out}
        """Items that were withdrawn: they are recommended to nobody, and passed over in histories."""
        self._index = {item_id: index for index, item_id in enumerate(self.item_ids) if not gone[index]}
        columns = () if attributes is None else attributes.get_columns()
        self.attributes = Attributes(columns, len(self.item_ids))
        counts = items["train_count"].to_numpy()
        self.train_counts = counts
        popular = np.argsort(-counts, kind="stable").astype(np.int32)
        self._popular = popular[~gone[popular]]
        # What came later has no share in the scores of the others.
        everything = counts.sum() + np.count_nonzero(self.catalogue.since == 0)
        self._popular_scores = np.log((counts[self._popular] + 1) / everything).astype(np.float32)

    @cached_property
    def _dense(self) -> DenseScores | None:
        """Made once: many are asked for few histories at a time."""
        with torch.no_grad():
            return dense_scores(self.generator)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Recommender:
        """Read a bundle: a folder that `prorec export` or `Run.export` wrote.

        Args:
            folder: the bundle.
            device: where to compute: auto, cpu, cuda, cuda:N or mps.

        Raises:
            UserError: a file of the bundle is missing or unreadable, or its parts do not belong together; the device
                is not there.
        """
        return cls.of_bundle(Bundle.load(Path(folder)), device)

    @classmethod
    def of_bundle(cls, bundle: Bundle, device: str = "cpu") -> Recommender:
        """The recommender that a bundle is."""
        parts = bundle.trained, bundle.items, bundle.codes.codes, bundle.embeddings, make_runtime(device).device
        return cls.of(*parts, bundle.attributes, bundle.catalogue)

    @classmethod
    def of(
        cls,
        trained: TrainedGenerator,
        items: pl.DataFrame,
        codes: npt.NDArray[np.uint16],
        embeddings: npt.NDArray[np.float32],
        device: torch.device,
        attributes: pl.DataFrame | None = None,
        catalogue: Catalogue | None = None,
    ) -> Recommender:
        """What a training left, ready to recommend; the last three as `restore_generator` takes them.

        Args:
            trained: what the stage left.
            items: item_id, title and train_count of every item.
            codes: the code table, uint16, shape (items, levels).
            embeddings: the embedding that was quantized, float32, shape (items, E).
            device: where it computes.
            attributes: columns kept for rules, a row an item.
            catalogue: what came later and what was withdrawn; None: nothing.
        """
        generator = restore_generator(trained, codes, embeddings, device, catalogue)
        scoring, *others = scorings_of(trained, generator.has_dense_score)
        masked = trained.history_masked
        return cls(generator, items, scoring, trained.beams, attributes, others, catalogue, history_masked=masked)

    @cached_property
    def words(self) -> CodeWords:
        """What items under the same codes have in common."""
        return CodeWords(self.generator.trie, self.titles)

    @cached_property
    def _relations(self) -> Relations | None:
        """What the model's ranker knows of items; None where it has none."""
        ranked = next((each for each in (self.scoring, *self.others) if isinstance(each, Ranked)), None)
        return None if ranked is None else ranked.ranker.relations

    @cached_property
    def look(self) -> Look:
        """Items looked up by their titles, and their neighbours."""
        texts_NT = None if self._relations is None else self._relations.texts_NT
        return Look(
            self.generator.trie, self.item_ids, self.titles, self.train_counts, texts_NT, self.catalogue.withdrawn
        )

    @cached_property
    def rules(self) -> RuleBook:
        """What rules leave of the catalogue."""
        return RuleBook(self.generator.trie, self._index, self.attributes, self.catalogue.withdrawn)

    def unknown(self, history: Sequence[str]) -> list[str]:
        """The item ids of a history that the catalogue lacks or that were withdrawn, in order, each once."""
        return [item_id for item_id in dict.fromkeys(history) if item_id not in self._index]

    def suggest(self, item_id: str) -> str:
        """The cure for an unknown item id: the nearest known one."""
        near = did_you_mean(item_id, self._index)
        return near if near.startswith("Did") else "Look the id up in items.parquet"

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        mask_history: bool | None = None,
        rules: Sequence[Rule | AllowedItems | None] | None = None,
    ) -> list[list[Recommendation]]:
        """The k best items for each history of item ids, oldest first; without those of the history if `mask_history`.

        None: as the model was measured.

        Unknown item ids are passed over (see `unknown`); a history without a known item gets what is popular.

        Args:
            histories: item ids, texts.
            k: items a list; there are fewer where no more may be recommended.
            mask_history: leave out what a history has.
            rules: for each history a `Rule`, or `allowed` of `RuleBook.left`, or None where all may be recommended.

        Raises:
            UserError: a history is no list of texts, k is not a positive whole number, there are not as many rules as
                histories, or a rule cannot be asked of this catalogue or leaves nothing.
        """
        histories = [id_list(history, f"histories[{place}]") for place, history in enumerate(histories)]
        if rules is not None and len(rules) != len(histories):
            problem = f"{len(rules):,} rules for {len(histories):,} histories"
            raise UserError(problem, place="rules", cure="Give one a history, None where there is none")
        allowed = None if rules is None else [self._allowed(rule) for rule in rules]
        return self.named(self.top(self.numbered(histories), k, mask_history=mask_history, rules=allowed))

    def _allowed(self, rule: Rule | AllowedItems | None) -> AllowedItems | None:
        if isinstance(rule, Rule):
            return self.rules.left(rule).allowed
        if rule is not None and not isinstance(rule, AllowedItems):
            raise UserError(f"of type {type(rule).__name__}, not a rule", place="rules", cure="Give Rule(…), or None")
        return rule

    def numbered(self, histories: Sequence[Sequence[str]]) -> Sequences:
        """Histories by the numbers of their items; unknown item ids are passed over."""
        known = [np.array([self._index[i] for i in history if i in self._index], np.int32) for history in histories]
        return from_lists(known, len(self.item_ids))

    def named(self, best: TopItems) -> list[list[Recommendation]]:
        """Lists by the ids and titles of their items."""
        return [
            [
                Recommendation(self.item_ids[item], self.titles[item], float(score))
                for item, score in zip(items, scores, strict=True)
                if item >= 0
            ]
            for items, scores in zip(best.items_UK, best.scores_UK, strict=True)
        ]

    def known(self, histories: pl.Series) -> Sequences:
        """Histories by the numbers of their items; item ids that `unknown` names are passed over.

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

    def top(
        self, histories: Sequences, k: int = 10, *, mask_history: bool | None = None, rules: Rules | None = None
    ) -> TopItems:
        """The k best items of each history by their numbers, or all items where there are fewer.

        An empty history gets what is popular. `mask_history` and `rules` as of `recommend`. A k beyond the beams or
        `DENSE_CANDIDATES` has the models look further, so that the first items of so long a list may be others.

        Raises:
            UserError: k is not a positive whole number.
        """
        if not isinstance(k, int | np.integer) or k < 1:
            raise UserError(f"k must be a whole number, at least 1, not {k!r}", place="k")
        k = self.at_most(k)
        best = self.top_of_empty(histories, k, rules)
        some = np.flatnonzero(np.diff(histories.offsets))
        own = None if rules is None else [rules[int(user)] for user in some]
        masked = self.masks(mask_history)
        best.items_UK[some], best.scores_UK[some] = self._ranked(histories.select(some), k, masked, own)
        return best

    def at_most(self, k: int) -> int:
        """How long a list of k items can be: no longer than what was not withdrawn."""
        return min(k, len(self._popular))

    def masks(self, mask_history: bool | None) -> bool:
        """Whether what a history has is left out; where nobody says, as the model was measured."""
        return self.history_masked if mask_history is None else mask_history

    def top_of_empty(self, histories: Sequences, k: int, rules: Rules | None) -> TopItems:
        """The k most popular items for each history; of what its rule leaves where the history is empty."""
        items = np.tile(self._popular[:k], (histories.n_users, 1))
        scores = np.tile(self._popular_scores[:k], (histories.n_users, 1))
        if rules is not None:
            for user in np.flatnonzero(np.diff(histories.offsets) == 0):
                if (rule := rules[int(user)]) is not None:
                    items[user], scores[user] = self._popular_of(rule.mask_N.cpu().numpy(), k)
        return TopItems(items, scores)

    def popular(self, history: IntArray, k: int, rule: AllowedItems | None = None) -> TopItems:
        """The k most popular items but those of one history, of what a rule leaves; one list."""
        open_N = np.ones(len(self.item_ids), bool) if rule is None else rule.mask_N.cpu().numpy().copy()
        open_N[history] = False
        items, scores = self._popular_of(open_N, k)
        return TopItems(items[None], scores[None])

    def looks_at(self, k: int) -> tuple[int, int]:
        """How many beams and items of the dense score a list of k items is made from; a list may depend on both."""
        k = self.at_most(k)
        return max(self.beams, k), max(DENSE_CANDIDATES, k)

    def candidates(
        self,
        histories: Sequences,
        k: int,
        *,
        mask_history: bool | None = None,
        rules: Rules | None = None,
        ranked: bool = True,
    ) -> Candidates:
        """What is worth ranking for lists of k items; `ranked`: by the ranker, too, which looks at more than others."""
        beams, dense = self.looks_at(k)
        masked = self.masks(mask_history)
        return find_candidates(
            self.generator,
            histories,
            beams,
            dense,
            masked=masked,
            whole=self._dense,
            rules=rules,
            near=near_of(self._relations) if ranked else None,
        )

    def _popular_of(self, open_N: Mask, k: int) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """The k most popular items of a mask, and their scores."""
        places = np.flatnonzero(open_N[self._popular])[:k]
        items, scores = np.full(k, -1, np.int32), np.full(k, -np.inf, np.float32)
        items[: len(places)], scores[: len(places)] = self._popular[places], self._popular_scores[places]
        return items, scores

    def _ranked(
        self, histories: Sequences, k: int, mask_history: bool, rules: Rules | None
    ) -> tuple[IntArray, npt.NDArray[np.float32]]:
        ranked = isinstance(self.scoring, Ranked)
        found = self.candidates(histories, k, mask_history=mask_history, rules=rules, ranked=ranked)
        return self.scoring(found, histories, k)
