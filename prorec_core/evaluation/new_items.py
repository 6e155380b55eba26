"""How well new items are found, and what their presence costs the others. Knows lists and data; knows no models.

Protocol: some items are held out of all that is trained, then stand in the catalogue beside the others. Whoever took
one last is asked for it, and everyone is asked for the test item of the plain evaluation, from the same catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prorec_core.config import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.metrics.measures import hits_at_k, recall_at_k, standard_error
from prorec_core.metrics.scorers import SCORERS
from prorec_core.metrics.top import TopItems, rank_of_target

CUTOFFS = (10, 50)
"""Lengths k at which recall is reported."""


@dataclass(frozen=True)
class NewItemLists:
    """Recommendations from a catalogue that holds the new items too, numbered after the others.

    Attributes:
        known: by scorer the lists of every user before the test item, as in the plain evaluation.
        new: by scorer those of the users whose last interaction of all is with a new item, in the order of
            `Dataset.new_items`, after all that these users have of other items.
        bonus: what was added to the score of each new item, in nats.
    """

    known: Mapping[str, TopItems]
    new: Mapping[str, TopItems]
    bonus: float = 0.0


def new_item_histories(dataset: Dataset) -> tuple[Sequences, Sequences]:
    """Before the test item of every user, and before the new item of each who took one last, over all items.

    Raises:
        ValueError: the data set holds no items out.
    """
    if dataset.new_items is None:
        raise ValueError("the data set has no new items")
    known, n_items = dataset.sequences.histories(Split.TEST), dataset.n_items_with_new
    new = dataset.sequences.select(dataset.new_items.users.astype(np.int64))
    return tuple(Sequences(found.items, found.offsets, n_items) for found in (known, new))  # type: ignore[return-value]


def new_item_metrics(
    lists: NewItemLists, dataset: Dataset, config: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, IntArray]]:
    """Recall of new and of other items from one catalogue.

    Returns:
        The metrics: `items`, the new ones, `interactions`, those measured, and `bonus`; `new` and `known`: by scorer
        recall_at_k for k = 10 and 50 with standard errors over users; `share_of_catalogue` of the new items, and
        `share_at_10`: by scorer their share of all users' first ten. And by scorer the rank of each new target, int32,
        0 where it is not in the list, in the order of `Dataset.new_items`.

    Raises:
        ValueError: the data set holds no items out, or lists are not a row a user.
    """
    histories = new_item_histories(dataset)
    assert dataset.new_items is not None
    length = min(config.list_length, dataset.n_items_with_new)
    training = dataset.sequences.training()
    training = Sequences(training.items, training.offsets, dataset.n_items_with_new)
    of_counts = {scorer: row.lists() for scorer, row in SCORERS.items() if row.everywhere}
    known, new = (
        {**found, **{name: of(training, asked, length, masked=config.mask_history) for name, of in of_counts.items()}}
        for found, asked in zip((lists.known, lists.new), histories, strict=True)
    )
    first_new = dataset.items.height
    targets = dataset.sequences.targets(Split.TEST), new_targets(dataset)
    cutoffs = [k for k in CUTOFFS if k <= max(length, 10)]
    of_known, of_new = (
        {scorer: _ranks(found[scorer], asked) for scorer in SCORERS if scorer in found}
        for found, asked in zip((known, new), targets, strict=True)
    )
    metrics = {
        "items": len(dataset.new_items),
        "interactions": len(dataset.new_items.users),
        "bonus": lists.bonus,
        "new": {scorer: _recall(ranks, cutoffs) for scorer, ranks in of_new.items()},
        "known": {scorer: _recall(ranks, cutoffs) for scorer, ranks in of_known.items()},
        "share_of_catalogue": round(len(dataset.new_items) / dataset.n_items_with_new, 6),
        "share_at_10": {scorer: new_share(known[scorer], first_new) for scorer in of_known},
    }
    return metrics, of_new


def new_targets(dataset: Dataset) -> IntArray:
    """What is looked for in the lists after `new_item_histories`' second: the new item of each who took one last.

    Raises:
        ValueError: the data set holds no items out.
    """
    if dataset.new_items is None:
        raise ValueError("the data set has no new items")
    return (dataset.new_items.targets + dataset.items.height).astype(np.int32)


def new_share(lists: TopItems, first_new: int, k: int = 10) -> float:
    """Share of new items, those from `first_new` on, among all that stands in the first k of the lists."""
    top = lists.items_UK[:, :k]
    return round(float((top >= first_new).sum() / max(int((top >= 0).sum()), 1)), 6)


def _ranks(lists: TopItems, targets: IntArray) -> IntArray:
    if lists.n_users != len(targets):
        raise ValueError(f"there are {lists.n_users} lists and {len(targets)} targets")
    return rank_of_target(lists.items_UK, targets)


def _recall(ranks: IntArray, cutoffs: list[int]) -> Mapping[str, float]:
    found = {}
    for k in cutoffs:
        found[f"recall_at_{k}"] = recall_at_k(ranks, k)
        found[f"recall_at_{k}_standard_error"] = standard_error(hits_at_k(ranks, k))
    return found
