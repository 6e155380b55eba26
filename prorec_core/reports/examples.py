"""A few users in words: what they had, what they were recommended, what they took. Knows titles; knows no models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.data.sequences import IntArray, Split
from prorec_core.evaluation.measured import Evaluation
from prorec_core.metrics.scorers import in_order
from prorec_core.reports.background import Background

SHOWN = 5
"""Items of each list that are shown, and that count as a hit here."""

_HISTORY = 8


def choose_users(ranks: IntArray, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Targets to show, drawn at random: about three in five among the first five of their lists, the rest not.

    Drawing from everyone would mostly show misses; where either kind is short, the other fills its place. Sorted.
    """
    random = np.random.default_rng(seed)
    found = (ranks > 0) & (ranks <= SHOWN)
    hits, misses = random.permutation(np.flatnonzero(found)), random.permutation(np.flatnonzero(~found))
    wanted = max(math.ceil(count * 0.6), count - len(misses))
    chosen = np.concatenate([hits[:wanted], misses[: count - min(wanted, len(hits))]])
    return np.sort(chosen[:count])


def examples(background: Background, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Test users with their history, target and lists in words.

    Args:
        background: data set and codes; `config.examples` says how many users.
        evaluation: the lists of the test users, and the ranks of their targets.

    Returns:
        For each user: user_id; earlier, how many items of the history are left out; history (oldest first) and
        target, each with title, item_id and codes; lists, each with scorer, rank of the target (0: not in the
        list), and entries with place, title, item_id, codes, score and whether it is the target.
    """
    lists, ranks = evaluation.lists, evaluation.test_ranks
    wanted = dict.fromkeys(("generative", evaluation.metrics["recommended"]))
    shown = [scorer for scorer in wanted if scorer in lists] or in_order(lists)[:1]
    if not shown or not background.config.examples:
        return []
    sequences = background.dataset.sequences
    histories, targets = sequences.histories(Split.TEST), sequences.targets(Split.TEST)
    items, users = background.dataset.all_items(), background.dataset.users["user_id"]
    owners = sequences.owners_of(Split.TEST)

    def words(item: int) -> dict[str, str]:
        row, codes = items.row(item, named=True), ""
        if background.codes is not None and item < len(background.codes):
            codes = "·".join(str(code) for code in background.codes[item])
        return {"title": row["title"] or row["item_id"], "item_id": row["item_id"], "codes": codes}

    found = []
    for user in choose_users(ranks[shown[-1]], background.config.examples, background.seed).tolist():
        history = histories.of_user(user)
        found.append(
            {
                "user_id": users[int(owners[user])],
                "earlier": max(len(history) - _HISTORY, 0),
                "history": [words(int(item)) for item in history[-_HISTORY:]],
                "target": words(int(targets[user])),
                "lists": [
                    {
                        "scorer": scorer,
                        "rank": int(ranks[scorer][user]),
                        "entries": [
                            {
                                **words(int(item)),
                                "place": place,
                                "score": f"{score:.2f}".replace("-", "−"),
                                "hit": bool(item == targets[user]),
                            }
                            for place, (item, score) in enumerate(
                                zip(
                                    lists[scorer].items_UK[user, :SHOWN],
                                    lists[scorer].scores_UK[user, :SHOWN],
                                    strict=True,
                                ),
                                start=1,
                            )
                            if item >= 0
                        ],
                    }
                    for scorer in shown
                ],
            }
        )
    return found
