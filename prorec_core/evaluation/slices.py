"""Recall for kinds of users: by how popular the target is, by how long the history is. Knows numbers only.

Axes: U users, N items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.data.sequences import IntArray
from prorec_core.metrics.measures import Values, hits_at_k, standard_error

Groups = npt.NDArray[np.int64]
POPULARITY = ("head", "middle", "tail", "not in training")


def popularity_groups(train_counts: npt.NDArray[np.int64]) -> Groups:
    """Head (0), middle (1) and tail (2) of the catalogue, shape (N,), each with a third of what is bought in training.

    Items are taken from the most to the least frequent; items of equal count stay together, in the group in which
    the first of them falls. Items that do not occur in training are a group of their own (3).

    >>> popularity_groups(np.array([1, 6, 1, 3, 3, 1, 1, 1, 0])).tolist()
    [2, 0, 2, 1, 1, 2, 2, 2, 3]
    """
    distinct, of_item, items = np.unique(train_counts, return_inverse=True, return_counts=True)
    mass = distinct * items
    before = mass.sum() - np.cumsum(mass)
    group = np.minimum(3 * before // max(int(mass.sum()), 1), 2)
    group[distinct == 0] = 3
    found: Groups = group[of_item]
    return found


def history_groups(lengths: npt.NDArray[np.int64], parts: int = 4) -> tuple[Groups, list[str]]:
    """Users in up to `parts` groups of similar size by the length of their history, and each group's label.

    >>> history_groups(np.array([3, 3, 3, 4, 5, 6, 9, 20]))
    (array([0, 0, 0, 1, 2, 2, 3, 3]), ['3', '4', '5–6', '9–20'])
    """
    if not len(lengths):
        return np.zeros(0, np.int64), []
    shares = np.arange(1, parts) / parts
    edges = np.unique(np.quantile(lengths, shares, method="lower"))
    group = np.searchsorted(edges, lengths, side="left")
    used, group = np.unique(group, return_inverse=True)
    labels = []
    for index in range(len(used)):
        low, high = int(lengths[group == index].min()), int(lengths[group == index].max())
        labels.append(str(low) if low == high else f"{low}–{high}")
    return group, labels


def sliced_recall(
    ranks: Mapping[str, IntArray],
    targets: IntArray,
    history_lengths: npt.NDArray[np.int64],
    train_counts: npt.NDArray[np.int64],
    k: int = 10,
) -> dict[str, list[dict[str, Any]]]:
    """Recall@k of each scorer for groups of users.

    Args:
        ranks: by scorer the rank of each user's target, shape (U,).
        targets: shape (U,).
        history_lengths: shape (U,).
        train_counts: shape (N,).

    Returns:
        Under target_popularity and history_length a list of groups: group (its name), users, detail, recall
        (by scorer) and standard_error (by scorer). Groups without users are left out.
    """
    hits = {scorer: hits_at_k(found, k) for scorer, found in ranks.items()}
    return sliced(hits, targets, history_lengths, train_counts)


def sliced(
    values: Mapping[str, Values],
    targets: IntArray,
    history_lengths: npt.NDArray[np.int64],
    train_counts: npt.NDArray[np.int64],
) -> dict[str, list[dict[str, Any]]]:
    """As `sliced_recall`, from each user's recall by scorer, shape (U,) each: a mean over seeds, for instance."""
    of_item = popularity_groups(train_counts)
    of_target = of_item[targets]
    of_length, labels = history_groups(history_lengths)
    by_popularity, by_length = [], []
    for index, name in enumerate(POPULARITY):
        counts = train_counts[of_item == index]
        low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
        detail = f"{low:,}–{high:,} times in training" if low < high else f"{low:,} times in training"
        by_popularity.append(_group(name, detail, of_target == index, values))
    for index, name in enumerate(labels):
        by_length.append(_group(name, "items of history", of_length == index, values))
    return {
        "target_popularity": [group for group in by_popularity if group["users"]],
        "history_length": by_length,
    }


def _group(name: str, detail: str, users: npt.NDArray[np.bool_], values: Mapping[str, Values]) -> dict[str, Any]:
    some = bool(users.any())
    return {
        "group": name,
        "detail": detail,
        "users": int(users.sum()),
        "recall": {scorer: round(float(of_all[users].mean()), 6) if some else 0.0 for scorer, of_all in values.items()},
        "standard_error": {scorer: standard_error(of_all[users]) for scorer, of_all in values.items()},
    }
