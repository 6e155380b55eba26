"""Every metric: how it is measured, at which lengths of a list, what it is called, and where it is shown.

Knows ranks and counts through `measures`; knows nothing of scorers, models, files or pages. A new metric is a row of
`METRICS`: evaluation, comparison, reports, terminal and tracking read it from here. Only rows stand here, and how they
are shown; what measures by them is `measuring`, so that another word measures nothing again. A rank counts from 1; 0 is
that of a target that is not in the list. Axes: T targets, N items of the catalogue.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from prorec_core.data.sequences import IntArray
from prorec_core.metrics.measures import (
    WHOLE,
    Counts,
    Values,
    distinct_items,
    full_name,
    gains_at_k,
    hits_at_k,
    mean_percentile,
    mean_popularity,
    reciprocal_ranks,
    share_of_catalogue,
)

if TYPE_CHECKING:
    pass

CUTOFFS = (1, 5, 10, 20, 50)
"""Lengths k at which most metrics are measured."""

View = Literal["page", "result", "comparison", "terminal", "headline"]
"""Where figures are shown: the report of an evaluation, its short table, that of a comparison, the terminal, and the
two figures that stand for all."""


@dataclass(frozen=True)
class Metric:
    """A metric, at one or several lengths of the list; the higher, the better, unless it is one of lists.

    Attributes:
        label: for people.
        meaning: in a sentence.
        of_ranks: each target's value from its rank, shape (T,) both, and the length; a metric is the mean over users of
            their means.
        of_lists: or one number from how often each item stands in all lists of that length, shape (N,), and how often
            it occurs in training, shape (N,).
        cutoffs: the lengths.
        compared: those at which scorers and variants are held against each other; with a standard error over users.
        shown: by view the lengths that are shown there.
        format: of a value, for people.
    """

    label: str
    meaning: str
    of_ranks: Callable[[IntArray, int], Values] | None = None
    of_lists: Callable[[Counts, Counts], float] | None = None
    cutoffs: tuple[int, ...] = CUTOFFS
    compared: tuple[int, ...] = ()
    shown: Mapping[View, tuple[int, ...]] = field(default_factory=dict)
    format: str = ".4f"


METRICS: dict[str, Metric] = {
    "recall": Metric(
        "Recall",
        "share of users whose target is among the first k",
        of_ranks=hits_at_k,
        compared=(10,),
        shown={
            "page": CUTOFFS,
            "result": (5, 10, 20),
            "comparison": (10, 20),
            "terminal": (10, 20),
            "headline": (10,),
        },
    ),
    "ndcg": Metric(
        "NDCG",
        "as recall, but a target counts the less the lower it stands",
        of_ranks=gains_at_k,
        compared=(10,),
        shown={
            "page": (5, 10, 20),
            "result": (5, 10, 20),
            "comparison": (10, 20),
            "terminal": (10,),
            "headline": (10,),
        },
    ),
    "mrr": Metric(
        "MRR",
        "mean of 1 / rank of the target, 0 where it is not in the list",
        of_ranks=reciprocal_ranks,
        cutoffs=(WHOLE,),
        shown=dict.fromkeys(("page", "result", "comparison", "terminal"), (WHOLE,)),
    ),
    "coverage": Metric(
        "Coverage",
        "share of the catalogue that stands in the first k of anyone's list",
        of_lists=share_of_catalogue,
        cutoffs=(10,),
        shown={"page": (10,), "terminal": (10,)},
    ),
    "distinct_items": Metric(
        "Distinct items",
        "how many different items stand in the first k of all lists",
        of_lists=distinct_items,
        cutoffs=(10,),
        shown={"page": (10,)},
        format=",.0f",
    ),
    "popularity": Metric(
        "Popularity",
        "how often what is recommended occurs in training, in the mean",
        of_lists=mean_popularity,
        cutoffs=(10,),
        shown={"page": (10,)},
        format=",.1f",
    ),
    "popularity_percentile": Metric(
        "Popularity percentile",
        "its mean percentile among the counts of the catalogue; 0.5 is what chance gives",
        of_lists=mean_percentile,
        cutoffs=(10,),
        shown={"page": (10,)},
    ),
}
"""By the name that metrics.json and tracking know it by, before `_at_k`; in the order in which they are shown."""


def label(full: str) -> str:
    """A metric's name for people.

    >>> label("ndcg_at_10"), label("mrr"), label("seconds")
    ('NDCG@10', 'MRR', 'seconds')
    """
    name, _, k = full.partition("_at_")
    words = METRICS[name].label if name in METRICS else name
    return f"{words}@{k}" if k else words


def figure(full: str, value: float) -> str:
    """A metric's value for people.

    >>> figure("recall_at_10", 0.10363), figure("distinct_items_at_10", 8123), figure("popularity_at_10", 41.26)
    ('0.1036', '8,123', '41.3')
    """
    name = full.partition("_at_")[0]
    return format(value, METRICS[name].format if name in METRICS else ".4f")


def columns(view: View, of: Literal["ranks", "lists"] | None = None) -> tuple[str, ...]:
    """The full names of the metrics of a view, in order: on pages by metric, elsewhere by length of the list; those of
    ranks before those of lists.

    >>> columns("headline"), columns("terminal")
    (('recall_at_10', 'ndcg_at_10'), ('recall_at_10', 'ndcg_at_10', 'recall_at_20', 'mrr', 'coverage_at_10'))

    Args:
        view: where they are shown.
        of: only those of ranks, or of lists.
    """
    wide = view in {"page", "result"}
    found: list[tuple[tuple[float, ...], str]] = []
    for place, (name, metric) in enumerate(METRICS.items()):
        if of is not None and (metric.of_ranks is not None) is not (of == "ranks"):
            continue
        for k in metric.shown.get(view, ()):
            length = float("inf") if k == WHOLE else k
            order = (place, length) if wide else (length, place)
            found.append(((float(metric.of_ranks is None), *order), full_name(name, k)))
    return tuple(full for _, full in sorted(found))


def what_decides() -> Iterator[list[Any]]:
    """Of every metric what decides its figures, as plain values: all but words and places."""
    for name, metric in METRICS.items():
        measure = metric.of_ranks or metric.of_lists
        assert measure is not None, f"{name} measures nothing"
        yield [name, inspect.getsource(measure), metric.cutoffs, metric.compared]
