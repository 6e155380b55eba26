"""Ranking metrics for one target a user, from ranks and top lists. Knows numbers; knows nothing of models or files.

A rank counts from 1; 0 stands for a target that is not in the list and adds nothing to any metric. Every metric
is a mean over users. Axes: U users, K items of a list, N items of the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prorec_core.data.sequences import IntArray
from prorec_core.metrics.top import TopItems

CUTOFFS = (1, 5, 10, 20, 50)
"""Lengths k at which recall and NDCG are reported."""

Values = npt.NDArray[np.float64]


def hits_at_k(ranks: IntArray, k: int) -> Values:
    """1.0 for each user whose target is among the first k, else 0.0; shape (U,)."""
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def gains_at_k(ranks: IntArray, k: int) -> Values:
    """Each user's NDCG@k: 1 / log2(rank + 1) within the first k, else 0; the ideal is 1, as there is one target.

    Järvelin & Kekäläinen 2002 with binary relevance. Shape (U,).
    """
    return np.where(hits_at_k(ranks, k) > 0, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def reciprocal_ranks(ranks: IntArray) -> Values:
    """1 / rank, 0 where the target is not in the list; shape (U,)."""
    return np.where(ranks > 0, 1.0 / np.maximum(ranks, 1), 0.0)


def recall_at_k(ranks: IntArray, k: int) -> float:
    """Share of users whose target is among the first k (with one target also called hit rate).

    >>> recall_at_k(np.array([1, 3, 11, 0]), 10)
    0.5
    """
    return _mean(hits_at_k(ranks, k))


def ndcg_at_k(ranks: IntArray, k: int) -> float:
    """Mean normalised discounted cumulative gain at k.

    >>> ndcg_at_k(np.array([1, 3, 11, 0]), 10)  # (1 + 1/2 + 0 + 0) / 4
    0.375
    """
    return _mean(gains_at_k(ranks, k))


def mrr(ranks: IntArray) -> float:
    """Mean reciprocal rank; a target beyond the end of the list adds 0.

    >>> mrr(np.array([1, 2, 4, 0]))
    0.4375
    """
    return _mean(reciprocal_ranks(ranks))


def values_by_user(metric: str, ranks: IntArray) -> Values:
    """One metric's value for each user, shape (U,), by the metric's name: recall_at_K, ndcg_at_K or mrr.

    >>> values_by_user("recall_at_5", np.array([1, 9])).tolist()
    [1.0, 0.0]
    """
    if metric == "mrr":
        return reciprocal_ranks(ranks)
    name, _, k = metric.rpartition("_at_")
    return {"recall": hits_at_k, "ndcg": gains_at_k}[name](ranks, int(k))


def rank_metrics(ranks: IntArray, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Recall and NDCG at every cutoff and MRR; with standard errors over users of recall and NDCG at 10."""
    found = {f"recall_at_{k}": recall_at_k(ranks, k) for k in cutoffs}
    found |= {f"ndcg_at_{k}": ndcg_at_k(ranks, k) for k in cutoffs}
    found["mrr"] = mrr(ranks)
    for metric in ("recall_at_10", "ndcg_at_10"):
        found[f"{metric}_standard_error"] = standard_error(values_by_user(metric, ranks))
    return found


def standard_error(values: Values) -> float:
    """Standard error of a mean over users: s / sqrt(U), s with U - 1 degrees of freedom; 0 for fewer than 2 users.

    >>> standard_error(np.array([0.0, 0.0, 1.0, 1.0]))
    0.288675
    """
    return round(float(values.std(ddof=1)) / math.sqrt(len(values)), 6) if len(values) > 1 else 0.0


def list_metrics(lists: TopItems, train_counts: npt.NDArray[np.int64], k: int = 10) -> dict[str, float]:
    """What the top-k lists are made of, whoever the target was.

    Args:
        lists: recommendations to every user.
        train_counts: how often each item occurs in training, shape (N,).
        k: how much of each list counts.

    Returns:
        distinct_items_at_k: how many different items stand in the lists of all users.
        coverage_at_k: that number as a share of the catalogue.
        popularity_at_k: mean train count of what is recommended.
        popularity_percentile_at_k: its mean percentile among the catalogue's train counts, 0 to 1; 0.5 is what
            recommending at random gives.
    """
    items = lists.items_UK[:, :k]
    items = items[items >= 0]
    times_N = np.bincount(items, minlength=len(train_counts))
    total = max(int(times_N.sum()), 1)
    distinct = int((times_N > 0).sum())
    return {
        f"distinct_items_at_{k}": distinct,
        f"coverage_at_{k}": round(distinct / max(len(train_counts), 1), 6),
        f"popularity_at_{k}": round(float(times_N @ train_counts) / total, 4),
        f"popularity_percentile_at_{k}": round(float(times_N @ percentiles(train_counts)) / total, 6),
    }


def percentiles(counts: npt.NDArray[np.int64]) -> Values:
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
