"""Which items the same users have, and how alike two are by that (item-kNN).

Knows histories; knows nothing of texts or models. Axes: U users, N items.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy import sparse

from prorec_core.data.sequences import Sequences

_PAIRS = 8_000_000
"""Pairs of items of the same users that are counted at a time, about."""


def had(histories: Sequences, latest: int | None = None, n_items: int | None = None) -> sparse.csr_matrix:
    """1 for each item that a user has, however often, float32, shape (U, N).

    Args:
        histories: whose.
        latest: how far back to look, in items; None: all the way.
        n_items: of a larger catalogue; None: theirs.
    """
    lengths = np.diff(histories.offsets)
    users = np.repeat(np.arange(histories.n_users), lengths)
    items = histories.items
    if latest is not None:
        near = np.repeat(histories.offsets[1:], lengths) - np.arange(len(users)) <= latest
        users, items = users[near], items[near]
    shape = (histories.n_users, n_items or histories.n_items)
    found = sparse.coo_matrix((np.ones(len(users), np.float32), (users, items)), shape).tocsr()
    found.data[:] = 1.0
    return found


def similar_items(
    has_UN: sparse.csr_matrix, shrinkage: float, most: int
) -> tuple[sparse.csr_matrix, npt.NDArray[np.int64]]:
    """How alike items are by who has them: `c_ij / (sqrt(c_i c_j) + shrinkage)`, c_ij the users who have both.

    Args:
        has_UN: as `had` gives it.
        shrinkage: against small counts.
        most: how many others an item keeps, the most similar ones; the lower number first among equals.

    Returns:
        Those, float32, shape (N, N), a row's entries in the order of their columns; and the rank of each entry in its
        row, from 0.
    """
    n_items = has_UN.shape[1]
    counts_N = np.asarray(has_UN.sum(axis=0)).ravel()
    of_item_NU = has_UN.T.tocsr()
    parts, ranks = [sparse.csr_matrix((0, n_items), dtype=np.float32)], [np.zeros(0, np.int64)]
    # An item has as many pairs as all of its users have items.
    pairs = np.cumsum(of_item_NU @ np.asarray(has_UN.sum(axis=1)).ravel().astype(np.float64))
    ends = np.searchsorted(pairs, np.arange(_PAIRS, pairs[-1] if n_items else 0, _PAIRS))
    bounds = np.unique([0, *ends, n_items]).tolist()
    for start, end in itertools.pairwise(bounds):
        both = (of_item_NU[start:end] @ has_UN).tocoo()
        rows, columns = both.row[(other := both.row + start != both.col)], both.col[other]
        norms = np.sqrt(counts_N[rows + start] * counts_N[columns])
        values = (both.data[other] / (norms + shrinkage)).astype(np.float32)
        order = np.lexsort((columns, -values, rows))
        rows, columns, values = rows[order], columns[order], values[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows, side="left")
        kept = np.flatnonzero(rank < most)
        kept = kept[np.lexsort((columns[kept], rows[kept]))]
        shape = (end - start, n_items)
        offsets = np.searchsorted(rows[kept], np.arange(shape[0] + 1))
        parts.append(sparse.csr_matrix((values[kept], columns[kept], offsets), shape))
        ranks.append(rank[kept])
    return sparse.vstack(parts).tocsr(), np.concatenate(ranks)
