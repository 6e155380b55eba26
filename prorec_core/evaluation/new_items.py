"""How well new items are found, and what their presence costs the others. Knows lists and data; knows no models.

Protocol: some items are held out of all that is trained, then stand in the catalogue beside the others. Whoever took
one last is asked for it, and everyone is asked for the test item of the plain evaluation, from the same catalogue. By
time the new items are those that training never saw, and the test targets are parted: those that are such an item, and
the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.evaluation.baselines import with_fallback
from prorec_core.metrics.measures import hits_at_k, recall_at_k, standard_error, user_means
from prorec_core.metrics.measuring import measured_always
from prorec_core.metrics.scorers import SCORERS
from prorec_core.metrics.top import TopItems, rank_of_target

CUTOFFS = (10, 50)
"""Lengths k at which recall is reported."""


@dataclass(frozen=True)
class NewItemLists:
    """Recommendations from a catalogue that holds the new items too, numbered after the others.

    Attributes:
        known: by scorer the lists before every test target that is no new item, as in the plain evaluation.
        new: by scorer those of the users whose last interaction of all is with a new item, in the order of
            `Dataset.new_items`, after all that these users have of other items; by time those before each target that
            is a new item.
        bonus: what was added to the score of each new item, in nats.
    """

    known: Mapping[str, TopItems]
    new: Mapping[str, TopItems]
    bonus: float = 0.0


def new_item_histories(dataset: Dataset) -> tuple[Sequences, Sequences]:
    """Before the test targets that are no new items, and before those that are, over all items.

    Raises:
        ValueError: the data set holds no items out.
    """
    if dataset.new_items is None:
        raise ValueError("the data set has no new items")
    n_items = dataset.n_items_with_new
    histories = dataset.sequences.histories(Split.TEST, n_items)
    if dataset.new_items.in_sequences:
        new = _is_new(dataset)
        return histories.select(np.flatnonzero(~new)), histories.select(np.flatnonzero(new))
    takers = dataset.sequences.select(dataset.new_items.users)
    return histories, Sequences(takers.items, takers.offsets, n_items)


def _is_new(dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Whether each test target is an item that training never saw, shape (targets,)."""
    return dataset.sequences.targets(Split.TEST) >= dataset.items.height


def new_item_metrics(
    lists: NewItemLists, dataset: Dataset, config: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, IntArray]]:
    """Recall of new and of other items from one catalogue.

    Returns:
        The metrics: `items`, the new ones, `interactions`, those measured, and `bonus`; `new` and `known`: by scorer
        recall_at_k for k = 10 and 50 with standard errors over users; by time also `all`, of every target together, and
        `by_time`;
        `share_of_catalogue` of the new items, and `share_at_10`: by scorer their share of the first ten of the lists
        before other targets. And by scorer the rank of each new target, int32,
        0 where it is not in the list, in the order of `Dataset.new_items`.

    Raises:
        ValueError: the data set holds no items out, or lists are not a row a user.
    """
    histories = new_item_histories(dataset)
    assert dataset.new_items is not None
    length = min(config.list_length, dataset.n_items_with_new)
    training = dataset.sequences.training()
    training = Sequences(training.items, training.offsets, dataset.n_items_with_new)
    of_counts = {scorer: SCORERS[scorer].lists() for scorer in measured_always(masked=config.mask_history)}
    known, new = (
        with_fallback(
            {
                **found,
                **{name: of(training, asked, length, masked=config.mask_history) for name, of in of_counts.items()},
            },
            training,
            asked,
        )
        for found, asked in zip((lists.known, lists.new), histories, strict=True)
    )
    first_new, by_time = dataset.items.height, dataset.new_items.in_sequences
    targets = dataset.sequences.targets(Split.TEST), new_targets(dataset)
    if by_time:
        targets = targets[0][~_is_new(dataset)], targets[1]
    owners = [each.owner for each in histories]
    cutoffs = [k for k in CUTOFFS if k <= max(length, 10)]
    of_known, of_new = (
        {scorer: _ranks(found[scorer], asked) for scorer in SCORERS if scorer in found}
        for found, asked in zip((known, new), targets, strict=True)
    )
    metrics = {
        "items": len(dataset.new_items),
        "interactions": len(dataset.new_items.users),
        "bonus": lists.bonus,
        "new": {scorer: _recall(ranks, cutoffs, owners[1]) for scorer, ranks in of_new.items()},
        "known": {scorer: _recall(ranks, cutoffs, owners[0]) for scorer, ranks in of_known.items()},
        "share_of_catalogue": round(len(dataset.new_items) / dataset.n_items_with_new, 6),
        "share_at_10": {scorer: new_share(known[scorer], first_new) for scorer in of_known},
    }
    if by_time:
        everyone = np.concatenate([each.owners for each in histories])
        metrics["by_time"] = True
        metrics["all"] = {
            scorer: _recall(np.concatenate([ranks, of_new[scorer]]), cutoffs, everyone)
            for scorer, ranks in of_known.items()
        }
    return metrics, of_new


def new_targets(dataset: Dataset) -> IntArray:
    """What is looked for in the lists after `new_item_histories`' second: the new items.

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


def _recall(ranks: IntArray, cutoffs: list[int], owners: IntArray | None) -> Mapping[str, float]:
    found = {}
    for k in cutoffs:
        found[f"recall_at_{k}"] = recall_at_k(ranks, k, owners)
        found[f"recall_at_{k}_standard_error"] = standard_error(user_means(hits_at_k(ranks, k), owners))
    return found
