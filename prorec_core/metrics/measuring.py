"""All metrics of a ranking, as the table of metrics has them, and by which scorers. Knows tables; knows no words.

Axes: U users, T targets, N items of the catalogue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prorec_core.data.sequences import IntArray
from prorec_core.metrics.measures import WHOLE, Counts, Values, full_name, standard_error, times_listed, user_means
from prorec_core.metrics.scorers import SCORERS
from prorec_core.metrics.table import CUTOFFS, METRICS

if TYPE_CHECKING:
    from prorec_core.metrics.top import TopItems


def compared() -> tuple[str, ...]:
    """The full names of those by which scorers and variants are held against each other."""
    return tuple(full_name(name, k) for name, metric in METRICS.items() for k in metric.compared)


def values_by_user(full: str, ranks: IntArray, owners: IntArray | None = None) -> Values:
    """A metric's value for each user, shape (U,), from the ranks of the targets, shape (T,).

    >>> values_by_user("recall_at_5", np.array([1, 9])).tolist()
    [1.0, 0.0]

    Args:
        full: the metric's full name.
        ranks: of the targets.
        owners: whose each target is (`user_means`).

    Raises:
        KeyError: there is no such metric of ranks.
    """
    name, k = _parts(full)
    measure = METRICS[name].of_ranks
    if measure is None:
        raise KeyError(f"{full} is no metric of ranks")
    return user_means(measure(ranks, k), owners)


def rank_metrics(
    ranks: IntArray, longest: int = max(CUTOFFS), owners: IntArray | None = None, *, whole: bool = True
) -> dict[str, float]:
    """By full name the mean over users of every metric of ranks, and the standard errors of those that are compared.

    Args:
        ranks: shape (T,).
        longest: greatest length that the lists have anything to say about.
        owners: whose each target is (`user_means`).
        whole: whether lists are as long as they should be, so that what is measured of the whole list says something.
    """
    found: dict[str, float] = {}
    for name, metric in METRICS.items():
        if metric.of_ranks is None:
            continue
        for k in metric.cutoffs:
            if k <= longest and (whole or k != WHOLE):
                values = user_means(metric.of_ranks(ranks, k), owners)
                found[full_name(name, k)] = round(float(values.mean()), 6) if len(values) else 0.0
                if k in metric.compared:
                    found[f"{full_name(name, k)}_standard_error"] = standard_error(values)
    return found


def measured_always(*, masked: bool) -> list[str]:
    """The scorers of interactions alone that every evaluation measures; `masked`: it leaves out what a user has."""
    return [name for name, row in SCORERS.items() if row.everywhere or (row.again and not masked)]


def list_metrics(lists: TopItems, train_counts: Counts) -> dict[str, float]:
    """By full name what the lists of all users are made of, whoever the targets were.

    Args:
        lists: recommendations to every user.
        train_counts: how often each item occurs in training, shape (N,).
    """
    return {
        full_name(name, k): metric.of_lists(times_listed(lists, len(train_counts), k), train_counts)
        for name, metric in METRICS.items()
        if metric.of_lists is not None
        for k in metric.cutoffs
    }


def _parts(full: str) -> tuple[str, int]:
    name, _, k = full.partition("_at_")
    return name, int(k) if k else WHOLE
