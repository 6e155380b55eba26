"""Recommendations that need no training: what is popular, and what occurs together with a user's latest item.

Knows counts; knows no models.

Axes: U users, N items, B users of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import csr_matrix

from prorec_core.data.sequences import Sequences
from prorec_core.metrics.top import TopItems, padded_histories, top_from_scores

_CELLS = 8_000_000
"""Cells of the largest temporary table."""


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
    # Columns by falling popularity: beside a great count the share below 1 is rounded away, and places decide.
    item_N = np.argsort(-popularity_N, kind="stable")
    place_N = np.argsort(item_N)
    has_UN, popularity_N = has_UN[:, item_N], popularity_N[item_N]
    tie_N = (popularity_N / (popularity_N.max(initial=0.0) + 1.0)).astype(np.float32)
    together_NU = has_UN.T.tocsr()
    lengths = np.diff(histories.offsets)
    latest_U = np.append(histories.items, 0)[np.maximum(histories.offsets[1:] - 1, 0)]
    last_U = np.where(lengths > 0, place_N[latest_U], -1)
    items = np.full((n_users, k), -1, np.int32)
    scores = np.full((n_users, k), -np.inf, np.float32)
    size = max(1, _CELLS // n_items)
    for start in range(0, n_users, size):
        chosen = np.arange(start, min(start + size, n_users))
        known_B = last_U[chosen] >= 0
        count_BN = np.zeros((len(chosen), n_items), np.float32)
        count_BN[known_B] = (together_NU[last_U[chosen[known_B]]] @ has_UN).toarray()
        own_BH = padded_histories(histories.select(chosen))
        forbidden = torch.from_numpy(np.where(own_BH < 0, -1, place_N[own_BH])) if masked else None
        top = top_from_scores(torch.from_numpy(count_BN + tie_N), k, forbidden)
        items[chosen] = np.where(top.items_UK < 0, -1, item_N[top.items_UK])
        scores[chosen] = top.scores_UK
    return TopItems(items, scores)


def with_fallback(lists: Mapping[str, TopItems], training: Sequences, histories: Sequences) -> dict[str, TopItems]:
    """The lists, with popular items where a history holds nothing that is known: so does what is served."""
    empty = np.flatnonzero(np.diff(histories.offsets) == 0)
    if not len(empty) or not lists:
        return dict(lists)
    popular = popularity_lists(
        training, histories.select(empty), max(each.length for each in lists.values()), masked=False
    )
    found = {}
    for name, each in lists.items():
        items, scores = each.items_UK.copy(), each.scores_UK.copy()
        items[empty], scores[empty] = popular.items_UK[:, : each.length], popular.scores_UK[:, : each.length]
        found[name] = TopItems(items, scores)
    return found


def popularity_lists(training: Sequences, histories: Sequences, k: int, *, masked: bool) -> TopItems:
    """Recommend to everyone what occurs most in the training data; the lower index first among equals.

    Args:
        training: what may be counted.
        histories: what each user already has, left out of the user's list if `masked`.
        k: items a list; where fewer are left, the list ends with -1.
        masked: never recommend what the user already has.

    Returns:
        Lists scored with the counts.
    """
    train_counts = np.bincount(training.items, minlength=training.n_items)
    order_N = np.argsort(-train_counts, kind="stable")
    place_N = np.empty_like(order_N)
    place_N[order_N] = np.arange(len(order_N))
    lengths = np.diff(histories.offsets)
    items_UK = np.full((histories.n_users, k), -1, np.int32)
    scores_UK = np.full((histories.n_users, k), -np.inf, np.float32)
    longest = int(lengths.max(initial=0)) if masked else 0
    depth = min(len(order_N), k + longest)
    chunk = max(1, _CELLS // max(depth, 1))
    for start in range(0, histories.n_users, chunk):
        stop = min(start + chunk, histories.n_users)
        free_UM = np.ones((stop - start, depth), bool)
        if masked:
            places = place_N[histories.items[histories.offsets[start] : histories.offsets[stop]]]
            users = np.repeat(np.arange(stop - start), lengths[start:stop])
            free_UM[users[places < depth], places[places < depth]] = False
        slots_UM = np.cumsum(free_UM, axis=1, dtype=np.int32)
        user, place = np.nonzero(free_UM & (slots_UM <= k))
        slot = slots_UM[user, place] - 1
        items_UK[start + user, slot] = order_N[place]
        scores_UK[start + user, slot] = train_counts[order_N[place]]
    return TopItems(items_UK, scores_UK)
