"""Sparse and dense scores, against sorting every item by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from prorec_core.data.sequences import from_lists
from prorec_core.evaluation.heuristics.scored import Dense, Sparse

USERS, ITEMS = 4, 6
rows = st.lists(
    st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5]), min_size=ITEMS, max_size=ITEMS), min_size=USERS, max_size=USERS
)
histories = st.lists(
    st.lists(st.integers(0, ITEMS - 1), max_size=5).map(lambda items: np.array(items, np.int32)),
    min_size=USERS,
    max_size=USERS,
)


@given(
    rows, histories, st.integers(1, ITEMS + 2), st.booleans(), st.lists(st.integers(0, ITEMS), min_size=4, max_size=4)
)
def test_lists_and_ranks_are_those_of_sorting_all_items(scores, taken, k, masked, targets):
    table, had = np.array(scores, np.float32), from_lists(taken, ITEMS)
    left_out = had if masked else None
    for scored in (Sparse(sparse.csr_matrix(table)), Dense(table)):
        top = scored.top(k, left_out)
        ranks = scored.ranks(np.array(targets, np.int32), left_out)
        for user in range(USERS):
            order = sorted(range(ITEMS), key=lambda item: (-table[user, item], item))
            order = [item for item in order if not masked or item not in taken[user]]
            assert top.items_UK[user].tolist() == [*order[:k], *[-1] * (k - len(order))]
            assert top.scores_UK[user, : len(order)].tolist() == [table[user, item] for item in order[:k]]
            assert ranks[user] == (order.index(targets[user]) + 1 if targets[user] in order else 0)
        assert np.array_equal(scored.of(np.arange(ITEMS)[None].repeat(USERS, 0)), table)
