"""Every scorer: what ranks the catalogue, what it is called, and which others it is held against.

Knows names and words; knows no model. A new scorer is a row of `SCORERS`, and its lists: those of `recommend_lists` or
of an evaluation's stage, or, for one that needs the interactions alone, the function named here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from prorec_core.data.sequences import Sequences
    from prorec_core.metrics.top import TopItems


class ListsOfCounts(Protocol):
    """Recommends from interactions alone."""

    def __call__(self, training: Sequences, histories: Sequences, k: int, *, masked: bool) -> TopItems:
        """The k best items of every user of `histories`.

        Args:
            training: what may be counted.
            histories: what each user already has.
            k: items a list; where fewer are left, the list ends with -1.
            masked: never recommend what the user already has.
        """


@dataclass(frozen=True)
class Scorer:
    """A scorer.

    Attributes:
        label: for people.
        meaning: in a sentence.
        colour: told apart from the others by the colour-blind too, on white and on black (after Okabe and Ito).
        marker: of Matplotlib; three numbers: a star of so many points.
        compared: the scorers that it is held against where both are measured.
        recommends: whether a model may recommend by it; the others stand beside it for comparison.
        generates: whether it is of a generator, and so on a scale with other generators.
        reranked: whether a ranker of its lists may stand for a variant, beside itself.
        counts: the function that recommends from interactions alone, as `module:function`; "" for one of a model.
        everywhere: measured in every evaluation; of those of interactions alone.
        again: measured in every evaluation that may recommend what a user has; of those of interactions alone.
        heuristic: the class that makes it of interactions, and of texts where it reads them, by a few numbers that
            validation chooses, as `module:class`; "" for what is none.
        reads_texts: of a heuristic, whether it reads text embeddings.
    """

    label: str
    meaning: str
    colour: str = "#8f4f2a"
    marker: str | tuple[int, int, int] = "X"
    compared: tuple[str, ...] = ()
    recommends: bool = True
    generates: bool = False
    reranked: bool = False
    counts: str = ""
    everywhere: bool = False
    again: bool = False
    heuristic: str = ""
    reads_texts: bool = False

    def lists(self) -> ListsOfCounts:
        """The function that `counts` names."""
        found: ListsOfCounts = self._named(self.counts)
        return found

    def heuristic_class(self) -> Any:
        """The class that `heuristic` names."""
        return self._named(self.heuristic)

    @staticmethod
    def _named(place: str) -> Any:
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(module), name)


SCORERS: dict[str, Scorer] = {
    "ranked": Scorer(
        "ranked",
        "a light ranker of what is found, by its scores, item-to-item counts, item-kNN, texts (unless ids alone are "
        "known), popularity and, where it may be recommended again, how often and how lately the user took it, fitted "
        "on validation users",
        "#7b4fa3",
        "P",
        compared=(
            *("fused", "generative", "aligned", "collaborative", "two_stream"),
            *("transitions_text", "transitions", "item_knn", "nearest_text", "often_taken", "lately_taken"),
        ),
        generates=True,
    ),
    "fused": Scorer(
        "fused",
        "Stage II: log-probability of the codes plus λ times the dense one",
        "#d1495b",
        "o",
        compared=("dense", "generative", "aligned"),
        generates=True,
    ),
    "generative": Scorer(
        "generative",
        "Stage II: beam search over the item codes alone",
        "#2f86c5",
        "s",
        compared=("dense", "aligned"),
        generates=True,
    ),
    "dense": Scorer(
        "dense",
        "what codes are fused with: Stage I's score, or the distillation head's",
        "#c98a12",
        "^",
        compared=("aligned",),
        recommends=False,
    ),
    "aligned": Scorer(
        "Stage I",
        "the sequential model over the integrated embedding (in names of metrics: aligned)",
        "#2a9d74",
        "D",
        recommends=False,
        reranked=True,
    ),
    "popularity": Scorer(
        "popularity",
        "the items that occur most in training",
        "#8a8f98",
        "v",
        recommends=False,
        counts="prorec_core.evaluation.baselines:popularity_lists",
        everywhere=True,
    ),
    "collaborative": Scorer("collaborative", "the sequential model that knows items by their ids", reranked=True),
    "item_to_item": Scorer(
        "item to item",
        "the items that occur together with the latest one",
        "#6b8e23",
        "*",
        counts="prorec_core.evaluation.baselines:item_to_item_lists",
    ),
    "transitions_text": Scorer(
        "transition graph with texts",
        "a walk from the latest two items over what followed what and over nearest texts, untrained",
        "#3d5a80",
        "h",
        reranked=True,
        heuristic="prorec_core.evaluation.heuristics.transitions:TransitionsAndTexts",
        reads_texts=True,
    ),
    "transitions": Scorer(
        "transition graph",
        "a walk from the latest two items over what followed what in training, untrained",
        "#7794b8",
        "H",
        reranked=True,
        heuristic="prorec_core.evaluation.heuristics.transitions:Transitions",
    ),
    "item_knn": Scorer(
        "item-kNN",
        "the items that most of the users have who have what the user has, by cosine",
        "#9a7b4f",
        "d",
        reranked=True,
        heuristic="prorec_core.evaluation.heuristics.neighbours:ItemKnn",
    ),
    "nearest_text": Scorer(
        "nearest text",
        "the items whose texts are nearest to those of the latest ones",
        "#6c757d",
        "8",
        reranked=True,
        heuristic="prorec_core.evaluation.heuristics.neighbours:NearestText",
        reads_texts=True,
    ),
    "often_taken": Scorer(
        "taken most often",
        "what the user took most often, then what is popular",
        "#5b7083",
        "<",
        recommends=False,
        counts="prorec_core.evaluation.own_items:often_taken_lists",
        again=True,
    ),
    "lately_taken": Scorer(
        "taken last",
        "what the user took last, the latest first, then what is popular",
        "#a06b6b",
        ">",
        recommends=False,
        counts="prorec_core.evaluation.own_items:lately_taken_lists",
        again=True,
    ),
    "given": Scorer(
        "given lists",
        "lists that another program made (evaluate.lists_file)",
        "#4a4e69",
        (6, 1, 0),
    ),
    "two_stream": Scorer(
        "two-stream",
        "two generators over two code tables: log-probability of the one plus λ times that of the other",
        "#b05a9c",
        "p",
        generates=True,
        reranked=True,
    ),
}
"""By the name that metrics.json and tracking know it by, in the order in which they are shown."""

GENERATOR = "generator"
"""Stands for the scorer by which a generator recommends: ranked, fused or generative."""

GIVEN = "given"
"""The scorer of lists that another program made."""

_UNKNOWN = Scorer("", "")


def ranked_baselines() -> dict[str, str]:
    """By name what a ranker makes of a baseline's lists, and that baseline's scorer."""
    return {f"{name}_ranked": name for name, row in SCORERS.items() if row.reranked}


def about(name: str) -> Scorer:
    """The row of a scorer; for a name that is none, one that is called so and has no colour of its own."""
    return SCORERS.get(name, _UNKNOWN)


def label(name: str) -> str:
    """A scorer's name for people; what is none stays as it is.

    >>> label("aligned"), label("item_to_item"), label("x_1")
    ('Stage I', 'item to item', 'x_1')
    """
    return about(name).label or name


def in_order(names: Iterable[str]) -> list[str]:
    """Names as they are shown: the scorers in their order, then any others by name."""
    there = set(names)
    return [name for name in SCORERS if name in there] + sorted(there - SCORERS.keys())


def what_decides() -> Iterator[list[Any]]:
    """Of every scorer what decides an evaluation's figures, as plain values: all but words and colours."""
    for name, row in SCORERS.items():
        yield [name, row.compared, row.recommends, row.counts, row.everywhere, row.again, row.heuristic]
