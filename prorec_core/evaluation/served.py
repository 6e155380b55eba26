"""A recommender as it is served, measured on a test that came after it. Knows histories and ranks; knows no registry.

Items are matched by their ids: what the recommender lacks is passed over in histories, and is never found as a target.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Split
from prorec_core.generation.recommender import Recommender
from prorec_core.metrics.top import rank_of_target
from prorec_core.progress import Progress, Report, silent

_USERS = 1000
"""Users whose lists are held at a time."""


def served_ranks(
    recommender: Recommender, dataset: Dataset, length: int, *, masked: bool, report: Report = silent
) -> IntArray:
    """Rank of each test item in what a recommender serves after the history before it, 0 where it is not there.

    Args:
        recommender: of any catalogue.
        dataset: the users, their histories and test items.
        length: items of a list.
        masked: leave out what a user already has.
        report: told of every so many users.

    Returns:
        int32, shape (targets,).
    """
    histories, targets = dataset.sequences.histories(Split.TEST), dataset.sequences.targets(Split.TEST)
    place_of = {item: place for place, item in enumerate(recommender.item_ids) if item not in recommender.withdrawn}
    ids = dataset.items["item_id"]
    # Targets that today's training never saw are numbered after its items: no list holds one.
    places = np.full(max(len(ids), int(targets.max(initial=-1)) + 1), -1, np.int32)
    places[: len(ids)] = [place_of.get(item, -1) for item in ids]
    ranks = np.zeros(len(targets), np.int32)
    for start in range(0, len(targets), _USERS):
        users = np.arange(start, min(start + _USERS, len(targets)))
        part = histories.select(users)
        lists = [ids.gather(part.of_user(user)).to_list() for user in range(part.n_users)]
        asked = recommender.known(pl.Series(lists, dtype=pl.List(pl.String)))
        found = recommender.top(asked, length, mask_history=masked)
        wanted = places[targets[users]]
        ranks[users] = np.where(wanted >= 0, rank_of_target(found.items_UK, wanted), 0)
        report(Progress(int(users[-1]) + 1, len(targets), "user"))
    return ranks
