"""Groups of users and items: every one in exactly one group, and recall in groups that adds up to the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.evaluation.slices import Asked, history_groups, popularity_groups, sliced_recall
from prorec_core.metrics.measures import recall_at_k

counts = st.lists(st.integers(0, 12), min_size=1, max_size=40).map(np.array)


@given(counts)
def test_more_popular_items_are_never_in_a_later_group(train_counts):
    groups = popularity_groups(train_counts)
    order = np.argsort(-train_counts, kind="stable")
    assert np.all(np.diff(groups[order]) >= 0)
    assert set(groups.tolist()) <= {0, 1, 2, 3}
    assert np.array_equal(groups == 3, train_counts == 0), "what never occurs is a group of its own"
    for count in set(train_counts.tolist()):
        assert len(set(groups[train_counts == count].tolist())) == 1, "equal items stay together"


def test_each_group_has_a_third_of_what_happens_where_counts_are_fine_grained():
    train_counts = np.random.default_rng(0).integers(0, 400, 5_000)
    shares = np.bincount(popularity_groups(train_counts), train_counts) / train_counts.sum()
    np.testing.assert_allclose(shares[:3], 1 / 3, atol=0.01)


@given(st.lists(st.integers(1, 30), max_size=50).map(lambda lengths: np.array(lengths, np.int64)))
def test_history_groups_split_the_lengths_in_order(lengths):
    groups, labels = history_groups(lengths)
    assert len(labels) <= 4
    assert set(groups.tolist()) == set(range(len(labels)))
    for index, label in enumerate(labels):
        low, _, high = label.partition("–")
        assert {int(low), int(high or low)} == {lengths[groups == index].min(), lengths[groups == index].max()}
        if index:
            assert lengths[groups == index].min() > lengths[groups == index - 1].max()


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_recall_of_the_groups_adds_up_to_recall(seed, n_users):
    random = np.random.default_rng(seed)
    train_counts = random.integers(0, 20, 30)
    targets = random.integers(0, 30, n_users).astype(np.int32)
    ranks = {"fused": random.integers(0, 15, n_users).astype(np.int32)}
    for groups in sliced_recall(ranks, Asked(targets, random.integers(1, 9, n_users), train_counts)).values():
        assert sum(group["users"] for group in groups) == n_users
        total = sum(group["users"] * group["recall"]["fused"] for group in groups)
        assert total / n_users == pytest.approx(recall_at_k(ranks["fused"], 10), abs=1e-5)
