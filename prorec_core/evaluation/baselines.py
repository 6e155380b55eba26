"""Recommendations that need no training: what occurs together with a user's latest item. Knows counts; no models.

Axes: U users, N items, B users of a batch.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix

from prorec_core.data.sequences import Sequences
from prorec_core.evaluation.ranking import TopItems, padded_histories, top_from_scores

_CELLS = 8_000_000
"""Scores of a batch of users, float32."""


def item_to_item_lists(training: Sequences, histories: Sequences, k: int, *, masked: bool) -> TopItems:
    """The items that occur in most training histories together with each user's most recent item.

    Among items of equal co-occurrence the one that occurs in more training histories comes first, then the lower
    index; so a list goes on with popular items where co-occurrence ends. An empty history gets popular items.

    Args:
        training: what may be counted.
        histories: each user's items; the last one of each is looked up.
        k: items a list; where fewer are left, the list ends with -1.
        masked: never recommend what the user already has.

    Returns:
        Lists scored with the co-occurrence, plus the share below 1 that popularity decides ties by.
    """
    n_users, n_items = histories.n_users, training.n_items
    users = np.repeat(np.arange(training.n_users), np.diff(training.offsets))
    has_UN = csr_matrix((np.ones(len(users), np.float32), (users, training.items)), (training.n_users, n_items))
    has_UN.data[:] = 1.0  # an item twice in a history is one occurrence
    popularity_N = np.asarray(has_UN.sum(axis=0)).ravel()
    tie_N = (popularity_N / (popularity_N.max(initial=0.0) + 1.0)).astype(np.float32)
    together_NU = has_UN.T.tocsr()
    lengths = np.diff(histories.offsets)
    last_U = np.where(lengths > 0, np.append(histories.items, 0)[np.maximum(histories.offsets[1:] - 1, 0)], -1)
    items = np.full((n_users, k), -1, np.int32)
    scores = np.full((n_users, k), -np.inf, np.float32)
    size = max(1, _CELLS // n_items)
    for start in range(0, n_users, size):
        chosen = np.arange(start, min(start + size, n_users))
        known_B = last_U[chosen] >= 0
        count_BN = np.zeros((len(chosen), n_items), np.float32)
        count_BN[known_B] = (together_NU[last_U[chosen[known_B]]] @ has_UN).toarray()
        forbidden = torch.from_numpy(padded_histories(histories.select(chosen))) if masked else None
        top = top_from_scores(torch.from_numpy(count_BN + tie_N), k, forbidden)
        items[chosen], scores[chosen] = top.items_UK, top.scores_UK
    return TopItems(items, scores)
