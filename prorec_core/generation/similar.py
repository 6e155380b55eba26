"""Which items the same users have, how alike two are by that (item-kNN), and what of it no model has found.

Knows histories; knows nothing of texts or models. Axes: U users, N items, J items of a user that are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from prorec_core.data.sequences import IntArray, Sequences

Near = Callable[[Sequences], sparse.csr_matrix]
"""How alike items are to all that each history has, float32, shape (U, N): nothing where nothing is known."""
IsOpen = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
"""Whether items may be listed, given their users and their numbers side by side."""
BESIDE_CANDIDATES = 30
"""Items that only a ranker finds, by how alike they are to a history, and looks at beside those of the models."""
PAIRS = 2_000_000
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
    ends = np.searchsorted(pairs, np.arange(PAIRS, pairs[-1] if n_items else 0, PAIRS))
    bounds = np.unique([0, *ends, n_items]).tolist()
    for start, end in itertools.pairwise(bounds):
        both = (of_item_NU[start:end] @ has_UN).tocoo()
        rows, columns = both.row[(other := both.row + start != both.col)], both.col[other]
        norms = np.sqrt(counts_N[rows + start] * counts_N[columns])
        values = (both.data[other] / (norms + shrinkage)).astype(np.float32)
        order, rank = _by_row(rows, columns, values)
        rows, columns, values = rows[order], columns[order], values[order]
        kept = np.flatnonzero(rank < most)
        kept = kept[np.lexsort((columns[kept], rows[kept]))]
        shape = (end - start, n_items)
        offsets = np.searchsorted(rows[kept], np.arange(shape[0] + 1))
        parts.append(sparse.csr_matrix((values[kept], columns[kept], offsets), shape))
        ranks.append(rank[kept])
    return sparse.vstack(parts).tocsr(), np.concatenate(ranks)


def strongest(table_NM: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """Each row's largest entries alone, of equal ones those of lower columns; where all are kept, the table itself."""
    if int(np.diff(table_NM.indptr).max(initial=0)) <= most:
        return table_NM
    entries = table_NM.tocoo()
    order, rank = _by_row(entries.row, entries.col, entries.data)
    kept = order[rank < most]
    return sparse.csr_matrix((entries.data[kept], (entries.row[kept], entries.col[kept])), table_NM.shape)


def found_beside(
    near: Near, histories: Sequences, n_items: int, taken_UJ: npt.NDArray[np.integer], is_open: IsOpen | None = None
) -> IntArray:
    """The items most alike to each history that nothing else has found, the most alike first.

    Args:
        near: what is known of them, perhaps of more items than the catalogue has.
        histories: whose.
        n_items: of the catalogue.
        taken_UJ: what is left out: found already, or had where that may not come back; -1 stands for nothing.
        is_open: what may be listed; None: everything.

    Returns:
        int32, shape (U, BESIDE_CANDIDATES), -1 where there are fewer. Of equal ones the lower number comes first.
    """
    entries = near(histories).tocoo()
    rows, columns, values = entries.row.astype(np.int64), entries.col.astype(np.int64), entries.data
    users = np.arange(len(taken_UJ))[:, None]
    left = columns < n_items
    left &= ~np.isin(rows * entries.shape[1] + columns, (users * entries.shape[1] + taken_UJ)[taken_UJ >= 0])
    rows, columns, values = rows[left], columns[left], values[left]
    if is_open is not None:
        left = is_open(rows, columns)
        rows, columns, values = rows[left], columns[left], values[left]
    order, rank = _by_row(rows, columns, values)
    first = rank < BESIDE_CANDIDATES
    found = np.full((histories.n_users, BESIDE_CANDIDATES), -1, np.int32)
    found[rows[order][first], rank[first]] = columns[order][first]
    return found


def _by_row(
    rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer], values: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The order of entries by row, the largest of a row first, of equal ones the lower column; and ranks from 0."""
    order = np.lexsort((columns, -values, rows))
    ordered = rows[order]
    return order, np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
