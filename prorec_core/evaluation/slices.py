"""Recall for kinds of targets: by how popular they are, by how long the history is, and others. Knows numbers only.

Axes: U users, T targets, N items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.metrics.measures import Values, hits_at_k, standard_error, user_means

Groups = npt.NDArray[np.int64]
Differ = Callable[[Mapping[str, Values]], Mapping[str, Any]]
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


@dataclass(frozen=True)
class Asked:
    """What is known of each target.

    Attributes:
        targets: the items, shape (T,).
        history_lengths: of the histories before them, shape (T,).
        train_counts: how often each item occurs in training, those that training never saw among them, shape (N,).
        owners: whose each target is; None: each is another user's.
        kinds: by way of grouping the names of two groups and whether each target is of the first, shape (T,).
    """

    targets: IntArray
    history_lengths: npt.NDArray[np.int64]
    train_counts: npt.NDArray[np.int64]
    owners: IntArray | None = None
    kinds: Mapping[str, tuple[tuple[str, str], npt.NDArray[np.bool_]]] = field(default_factory=dict)


def what_is_asked(sequences: Sequences, *, masked: bool) -> Asked:
    """What is known of the test targets, some of which may be items that training never saw.

    Beside popularity and length of history, which are told of all data: where users have stretches of their own
    (`Borders`), whether training saw the user; and where the history is not masked, whether the user has the target
    already.
    """
    targets, owners, kinds = sequences.targets(Split.TEST), sequences.owners_of(Split.TEST), {}
    if sequences.borders is not None:
        trained = np.diff(sequences.training().offsets) > 0
        kinds["user"] = (("users in training", "new users"), trained[owners])
    if not masked:
        kinds["repeats"] = (("taken before", "new to the user"), sequences.taken_before(Split.TEST))
    lengths = np.diff(sequences.histories(Split.TEST).offsets)
    unseen = max(int(targets.max(initial=0)) + 1 - sequences.n_items, 0)
    counts = np.append(sequences.train_counts(), np.zeros(unseen, np.int64))
    return Asked(targets, lengths, counts, None if sequences.borders is None else owners, kinds)


def sliced_recall(ranks: Mapping[str, IntArray], asked: Asked, k: int = 10) -> dict[str, list[dict[str, Any]]]:
    """Recall@k of each scorer for groups of targets.

    Args:
        ranks: by scorer the rank of each target, shape (T,).
        asked: the targets.

    Returns:
        Under target_popularity, history_length and the other kinds a list of groups: group (its name), users, detail,
        recall (by scorer, the mean over users of their means) and standard_error (by scorer). Groups without users are
        left out, and kinds of which one group alone has any.
    """
    return sliced({scorer: hits_at_k(found, k) for scorer, found in ranks.items()}, asked)


def sliced(values: Mapping[str, Values], asked: Asked, differ: Differ | None = None) -> dict[str, list[dict[str, Any]]]:
    """As `sliced_recall`, from each target's recall by scorer, shape (T,) each: a mean over seeds, for instance.

    Args:
        values: by scorer, or whatever else recommends.
        asked: the targets.
        differ: given the recall of a group's users by scorer, what each group is to say under `against`; None: nothing.
    """
    of_item = popularity_groups(asked.train_counts)
    of_target = of_item[asked.targets]
    of_length, labels = history_groups(asked.history_lengths)
    by_popularity, by_length = [], []
    for index, name in enumerate(POPULARITY):
        counts = asked.train_counts[of_item == index]
        low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
        detail = f"{low:,}–{high:,} times in training" if low < high else f"{low:,} times in training"
        by_popularity.append(_group(name, detail, of_target == index, values, asked.owners, differ))
    for index, name in enumerate(labels):
        by_length.append(_group(name, "items of history", of_length == index, values, asked.owners, differ))
    found = {
        "target_popularity": [group for group in by_popularity if group["users"]],
        "history_length": by_length,
    }
    for kind, (names, first) in asked.kinds.items():
        groups = [
            _group(name, "", members, values, asked.owners, differ)
            for name, members in zip(names, (first, ~first), strict=True)
            if members.any()
        ]
        if len(groups) > 1:
            found[kind] = groups
    return found


def _group(
    name: str,
    detail: str,
    members: npt.NDArray[np.bool_],
    values: Mapping[str, Values],
    owners: IntArray | None,
    differ: Differ | None,
) -> dict[str, Any]:
    some, whose = bool(members.any()), None if owners is None else owners[members]
    by_user = {scorer: user_means(of_all[members], whose) for scorer, of_all in values.items()}
    found = {
        "group": name,
        "detail": detail,
        "users": int(members.sum()) if whose is None else len(np.unique(whose)),
        "recall": {scorer: round(float(of.mean()), 6) if some else 0.0 for scorer, of in by_user.items()},
        "standard_error": {scorer: standard_error(of) for scorer, of in by_user.items()},
        **({"against": differ(by_user) if some else {}} if differ is not None else {}),
    }
    return found if whose is None else {**found, "targets": int(members.sum())}
