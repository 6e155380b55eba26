"""What every heuristic shares: its numbers and the grid they are chosen from, and its lists, made block by block.

Knows scores of items; knows nothing of how they come about. Items are renumbered here by how often they occur in
training, the most frequent first and the lower index first among equals: of equal scores the more popular item wins,
and a list goes on with popular items where a heuristic has nothing to say.

Axes: U users, B users of a block, N items, S text dimensions, K items of a list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from prorec_core.alignment.new_items import directions_of
from prorec_core.data.sequences import IntArray, Longs, Sequences, Split
from prorec_core.evaluation.heuristics.scored import Floats, Scored
from prorec_core.evaluation.lists import more_items, with_own
from prorec_core.generation.similar import BESIDE_CANDIDATES, Near
from prorec_core.metrics.measures import ndcg_at_k
from prorec_core.metrics.top import TopItems
from prorec_core.progress import Progress, Report, silent

Setting = Mapping[str, float]
"""A heuristic's numbers, by name."""
Scores = Callable[[Sequences], Iterator[Scored]]
"""Given some histories: each item's score by one setting after the other."""
CHOOSING = 2_000
"""Validation targets, evenly spaced, that a setting is chosen on at most, as a model is after each epoch by default."""
_CELLS, _FEWEST = 4_000_000, 64
"""Cells of a block's scores, users times items, unless that would be fewer users than those."""
_CHOSEN_BY = 10


@dataclass(frozen=True)
class Trial:
    """A setting, and its validation NDCG@10."""

    setting: Setting
    ndcg_at_10: float


class Heuristic(ABC):
    """A recommender that counts and compares, over items that are numbered as in `Catalogue`.

    Args:
        training: what may be counted.
        texts_NS: directions of the items' texts, float32; of no use to those that know ids alone.

    Attributes:
        axes: the values that each number is chosen from; the first of each holds until another is chosen.
        rounds: which numbers are chosen together, one round after the other.
        shared: the numbers that settings may differ in and are scored together all the same.
        gains: whether scores are gains from 0 on, whose logarithm a ranker is given, or cosines.
    """

    axes: ClassVar[Mapping[str, Sequence[float]]]
    rounds: ClassVar[Sequence[Sequence[str]]]
    shared: ClassVar[Sequence[str]]
    gains: ClassVar[bool] = True

    def __init__(self, training: Sequences, texts_NS: Floats | None) -> None:
        self.training = training
        self.texts_NS = texts_NS

    @abstractmethod
    def scores(self, settings: Sequence[Setting]) -> Scores:
        """Scores by some settings that differ in shared numbers alone; the higher the better."""

    @classmethod
    def default(cls) -> dict[str, float]:
        """The setting where nothing can be chosen."""
        return {name: values[0] for name, values in cls.axes.items()}


class Catalogue:
    """A heuristic over the items of some histories.

    Args:
        kind: which heuristic.
        training: what may be counted.
        n_items: size of the catalogue, which may hold more items than training knows, after the others.
        texts_NS: text embeddings of all of them, shape (N, S); None where the heuristic knows ids alone.
    """

    def __init__(self, kind: type[Heuristic], training: Sequences, n_items: int, texts_NS: Floats | None) -> None:
        counts_N = np.bincount(training.items, minlength=n_items)
        self.kind = kind
        self._item_N = np.argsort(-counts_N, kind="stable").astype(np.int32)
        self._number_N = np.empty_like(self._item_N)
        self._number_N[self._item_N] = np.arange(n_items, dtype=np.int32)
        self._training = Sequences(self._number_N[training.items], training.offsets, n_items)
        self._texts_NS = None if texts_NS is None else directions_of(texts_NS[self._item_N])
        self._heuristic: Heuristic | None = None

    @property
    def heuristic(self) -> Heuristic:
        """The heuristic over the renumbered items, made when it is first asked for."""
        if self._heuristic is None:
            self._heuristic = self.kind(self._training, self._texts_NS)
        return self._heuristic

    def lists(
        self,
        setting: Setting,
        histories: Sequences,
        k: int,
        *,
        masked: bool,
        own: int = 0,
        near: Near | None = None,
        report: Report = silent,
    ) -> TopItems:
        """The k best items of every user by one setting.

        Args:
            setting: the heuristic's numbers.
            histories: users' items, of this catalogue.
            k: items a list.
            masked: leave out what a user has.
            own: so many of a user's latest different items stand in the list too, which is that much longer.
            near: and so do BESIDE_CANDIDATES of those that this knows.
            report: told of every block, in users.
        """
        width = k + own + (BESIDE_CANDIDATES if near else 0)
        items = np.full((histories.n_users, width), -1, np.int32)
        scores = np.full((histories.n_users, width), -np.inf, np.float32)
        score = self.heuristic.scores([setting])
        for rows, part in self._blocks(histories, report):
            (scored,) = score(part)
            top = scored.top(k, part if masked else None)
            # What is near is known by the numbers that items have elsewhere.
            more_BH = more_items(
                self._named(top.items_UK),
                histories.select(rows),
                len(self._item_N),
                masked=masked,
                own=own,
                near=near,
            )
            if more_BH.size:
                more_BH = np.where(more_BH >= 0, self._number_N[more_BH], -1).astype(np.int64)
                top = with_own(top, more_BH, scored.of(more_BH))
            items[rows, : top.length], scores[rows, : top.length] = top.items_UK, top.scores_UK
        return TopItems(self._named(items), scores)

    def _named(self, numbers: npt.NDArray[np.integer]) -> IntArray:
        """Items by the numbers that they have elsewhere, -1 standing for none."""
        return np.where(numbers >= 0, self._item_N[numbers], -1).astype(np.int32)

    def choose(
        self, sequences: Sequences, *, masked: bool, report: Report = silent
    ) -> tuple[dict[str, float], list[Trial]]:
        """The setting of the highest validation NDCG@10, the first one among equals, and all that were tried.

        Where validation items are trained on, or nothing can be asked for, it is the default, and none was tried.
        """
        best, trials = self.kind.default(), list[Trial]()
        asked = sequences.answerable(Split.VALIDATION)
        if not sequences.validates or not len(asked):
            return best, []
        asked = asked[np.unique(np.linspace(0, len(asked) - 1, min(len(asked), CHOOSING)).astype(np.int64))]
        histories = sequences.histories(Split.VALIDATION).select(asked)
        targets, owners = sequences.targets(Split.VALIDATION)[asked], sequences.owners_of(Split.VALIDATION)[asked]
        for names in self.kind.rounds:
            tried = []
            alone = [name for name in names if name not in self.kind.shared]
            together = [name for name in names if name in self.kind.shared]
            for held in _settings(best, alone, self.kind.axes):
                settings = list(_settings(held, together, self.kind.axes))
                ranks = self.ranks(settings, histories, targets, masked=masked, report=report)
                tried += [
                    Trial(each, ndcg_at_k(of, _CHOSEN_BY, owners)) for each, of in zip(settings, ranks, strict=True)
                ]
            best = dict(max(tried, key=lambda trial: trial.ndcg_at_10).setting)
            known = [trial.setting for trial in trials]
            trials += [trial for trial in tried if trial.setting not in known]
        return best, trials

    def ranks(
        self,
        settings: Sequence[Setting],
        histories: Sequences,
        targets: IntArray,
        *,
        masked: bool,
        report: Report = silent,
    ) -> list[IntArray]:
        """Each target's place among all items, from 1, by settings that differ in shared numbers alone.

        Args:
            settings: the heuristic's numbers.
            histories: users' items, of this catalogue.
            targets: an item for each; one that the catalogue lacks has no place.
            masked: what a user has is left out.
            report: told of every block, in users.

        Returns:
            For each setting, int32, shape (U,); 0 where there is no place.
        """
        known, score = targets < len(self._number_N), self.heuristic.scores(settings)
        numbers = np.where(known, self._number_N[np.where(known, targets, 0)], len(self._number_N)).astype(np.int32)
        found = [np.zeros(len(targets), np.int32) for _ in settings]
        for rows, part in self._blocks(histories, report):
            for ranks, scored in zip(found, score(part), strict=True):
                ranks[rows] = scored.ranks(numbers[rows], part if masked else None)
        return found

    def _blocks(self, histories: Sequences, report: Report) -> Iterator[tuple[Longs, Sequences]]:
        """Some users at a time: which, and their histories in the numbers of the heuristic."""
        histories = replace(histories, items=self._number_N[histories.items]).owned()
        size = max(_FEWEST, _CELLS // max(len(self._item_N), 1))
        for start in range(0, histories.n_users, size):
            rows = np.arange(start, min(start + size, histories.n_users))
            yield rows, histories.select(rows)
            report(Progress(int(rows[-1]) + 1, histories.n_users, "user"))


def _settings(held: Setting, names: Sequence[str], axes: Mapping[str, Sequence[float]]) -> Iterator[dict[str, float]]:
    """A setting with every combination of values of some of its numbers."""
    for values in product(*(axes[name] for name in names)):
        yield {**held, **dict(zip(names, values, strict=True))}
