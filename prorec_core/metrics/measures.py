"""How rankings are measured, from ranks and top lists. Knows numbers; knows no model and no name.

A rank counts from 1; 0 stands for a target that is not in the list and adds nothing to any metric. Every metric of
ranks is a mean over users; a user's value is the mean over the targets of that user, who has one or several. Axes: U
users, T targets, K items of a list, N items of the catalogue.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prorec_core.data.sequences import IntArray

if TYPE_CHECKING:
    from prorec_core.metrics.top import TopItems

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


WHOLE = 0
"""In place of a length: the whole list."""


def full_name(name: str, k: int) -> str:
    """The name of a metric at a length.

    >>> full_name("recall", 10), full_name("mrr", WHOLE)
    ('recall_at_10', 'mrr')
    """
    return f"{name}_at_{k}" if k != WHOLE else name


def user_means(values_T: Values, owners_T: IntArray | None) -> Values:
    """Each user's mean over that user's targets, users ascending, shape (U,).

    >>> user_means(np.array([1.0, 0.0, 0.0]), np.array([3, 3, 8])).tolist()
    [0.5, 0.0]

    Args:
        values_T: of each target.
        owners_T: whose each target is; None: each is another user's.
    """
    if owners_T is None:
        return values_T
    _, places, counts = np.unique(owners_T, return_inverse=True, return_counts=True)
    means: Values = np.bincount(places, values_T, len(counts)) / counts
    return means


def shares_of_users(owners_T: IntArray) -> Values:
    """What each target counts in a mean over users, where each user's value is the mean of that user's; shape (T,).

    >>> shares_of_users(np.array([3, 3, 8])).tolist()
    [0.25, 0.25, 0.5]

    Args:
        owners_T: whose each target is.
    """
    _, places, counts = np.unique(owners_T, return_inverse=True, return_counts=True)
    shares: Values = 1.0 / (counts[places] * len(counts))
    return shares


def hits_at_k(ranks: IntArray, k: int) -> Values:
    """1.0 for each target that is among the first k, else 0.0; shape (T,)."""
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def gains_at_k(ranks: IntArray, k: int) -> Values:
    """Each target's NDCG@k: 1 / log2(rank + 1) within the first k, else 0; the ideal is 1, as a list has one target.

    Järvelin & Kekäläinen 2002 with binary relevance. Shape (T,).
    """
    return np.where(hits_at_k(ranks, k) > 0, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def reciprocal_ranks(ranks: IntArray, k: int = WHOLE) -> Values:
    """1 / rank, 0 where the target is not among the first k, or in the list; shape (T,)."""
    found = np.where(ranks > 0, 1.0 / np.maximum(ranks, 1), 0.0)
    return found if k == WHOLE else found * hits_at_k(ranks, k)


def recall_at_k(ranks: IntArray, k: int, owners: IntArray | None = None) -> float:
    """Share of users whose target is among the first k (with one target also called hit rate).

    >>> recall_at_k(np.array([1, 3, 11, 0]), 10)
    0.5
    """
    return _mean(user_means(hits_at_k(ranks, k), owners))


def ndcg_at_k(ranks: IntArray, k: int, owners: IntArray | None = None) -> float:
    """Mean normalised discounted cumulative gain at k.

    >>> ndcg_at_k(np.array([1, 3, 11, 0]), 10)  # (1 + 1/2 + 0 + 0) / 4
    0.375
    """
    return _mean(user_means(gains_at_k(ranks, k), owners))


def mrr(ranks: IntArray) -> float:
    """Mean reciprocal rank; a target beyond the end of the list adds 0.

    >>> mrr(np.array([1, 2, 4, 0]))
    0.4375
    """
    return _mean(reciprocal_ranks(ranks))


def standard_error(values: Values) -> float:
    """Standard error of a mean over users: s / sqrt(U), s with U - 1 degrees of freedom; 0 for fewer than 2 users.

    >>> standard_error(np.array([0.0, 0.0, 1.0, 1.0]))
    0.288675
    """
    return round(float(values.std(ddof=1)) / math.sqrt(len(values)), 6) if len(values) > 1 else 0.0


def times_listed(lists: TopItems, n_items: int, k: int) -> Counts:
    """How often each item stands in the first k of all lists, shape (N,)."""
    items = lists.items_UK[:, :k]
    found: Counts = np.bincount(items[items >= 0], minlength=n_items)
    return found


def distinct_items(times_N: Counts, train_counts: Counts) -> float:
    """How many different items stand in the lists."""
    return int((times_N > 0).sum())


def share_of_catalogue(times_N: Counts, train_counts: Counts) -> float:
    """That number as a share of the catalogue."""
    return round(int((times_N > 0).sum()) / max(len(train_counts), 1), 6)


def mean_popularity(times_N: Counts, train_counts: Counts) -> float:
    """Mean count in training of what is recommended."""
    return round(float(times_N @ train_counts) / max(int(times_N.sum()), 1), 4)


def mean_percentile(times_N: Counts, train_counts: Counts) -> float:
    """Its mean percentile among the catalogue's counts in training, 0 to 1; 0.5 is what chance gives."""
    return round(float(times_N @ percentiles(train_counts)) / max(int(times_N.sum()), 1), 6)


def percentiles(counts: Counts) -> Values:
    """For each item the share of items with a lower count plus half the share with an equal one; shape (N,).

    >>> percentiles(np.array([5, 1, 5, 9])).tolist()
    [0.5, 0.125, 0.5, 0.875]
    """
    ordered = np.sort(counts)
    below = np.searchsorted(ordered, counts, side="left")
    up_to = np.searchsorted(ordered, counts, side="right")
    return (below + up_to) / (2.0 * max(len(counts), 1))


def _mean(values: Values) -> float:
    return round(float(values.mean()), 6) if len(values) else 0.0
