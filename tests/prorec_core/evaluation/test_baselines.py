"""Co-occurrence with the latest item, against counting it user by user."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.data.sequences import Split, from_lists
from prorec_core.evaluation import baselines
from prorec_core.evaluation.baselines import item_to_item_lists

ITEMS = 7
histories = st.lists(
    st.lists(st.integers(0, ITEMS - 1), max_size=6).map(lambda items: np.array(items, np.int32)), min_size=1, max_size=8
)


@given(histories, histories, st.integers(1, ITEMS), st.booleans())
def test_lists_are_those_of_the_definition(training, asked, k, masked):
    having = [set(items.tolist()) for items in training]
    popularity = [sum(item in owned for owned in having) for item in range(ITEMS)]
    found = item_to_item_lists(from_lists(training, ITEMS), from_lists(asked, ITEMS), k, masked=masked)
    assert found.items_UK.dtype == np.int32
    for user, history in enumerate(asked):
        together = [
            sum(item in owned and int(history[-1]) in owned for owned in having) if len(history) else 0
            for item in range(ITEMS)
        ]
        order = sorted(range(ITEMS), key=lambda item: (-together[item], -popularity[item], item))
        if masked:
            order = [item for item in order if item not in history]
        assert found.items_UK[user].tolist() == [*order[:k], *[-1] * (k - len(order))]
        assert np.floor(found.scores_UK[user][: len(order)]).tolist() == [together[item] for item in order[:k]]


def test_batches_of_users_leave_no_seam(monkeypatch):
    random = np.random.default_rng(0)
    sequences = from_lists([random.permutation(ITEMS)[:4].astype(np.int32) for _ in range(20)], ITEMS)
    whole = item_to_item_lists(sequences.training(), sequences.histories(Split.TEST), 5, masked=True)
    monkeypatch.setattr(baselines, "_CELLS", 3 * ITEMS)
    parts = item_to_item_lists(sequences.training(), sequences.histories(Split.TEST), 5, masked=True)
    assert np.array_equal(whole.items_UK, parts.items_UK)
    assert np.array_equal(whole.scores_UK, parts.scores_UK)


def test_popularity_decides_ties_beside_any_count():
    """4,100 times with the latest item both; beside such a number a share below 1 is rounded away."""
    training = [np.array([0, 1, 2], np.int32)] * 4_100 + [np.array([2], np.int32)]
    found = item_to_item_lists(from_lists(training, 3), from_lists([np.array([0], np.int32)], 3), 2, masked=True)
    assert found.items_UK.tolist() == [[2, 1]]
