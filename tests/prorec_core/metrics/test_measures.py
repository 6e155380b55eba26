"""Metrics against values worked out by hand, plain definitions, and what must hold of any ranking."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prorec_core.metrics import measures, measuring, scorers, table, top
from prorec_core.metrics.measures import (
    mean_percentile,
    mean_popularity,
    mrr,
    ndcg_at_k,
    recall_at_k,
    share_of_catalogue,
    standard_error,
    times_listed,
)
from prorec_core.metrics.measuring import list_metrics, rank_metrics, values_by_user
from prorec_core.metrics.table import CUTOFFS
from prorec_core.metrics.top import TopItems

some_ranks = arrays.arrays(np.int32, st.integers(1, 40), elements=st.integers(0, 50))


@pytest.mark.parametrize("module", [measures, measuring, scorers, table, top])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.attempted
    assert not result.failed


@given(some_ranks, st.integers(1, 60))
def test_metrics_equal_their_plain_definitions(ranks, k):
    n = len(ranks)
    assert recall_at_k(ranks, k) == pytest.approx(sum(1 <= r <= k for r in ranks) / n, abs=1e-6)
    assert ndcg_at_k(ranks, k) == pytest.approx(sum(1 / math.log2(r + 1) for r in ranks if 1 <= r <= k) / n, abs=1e-6)
    assert mrr(ranks) == pytest.approx(sum(1 / r for r in ranks if r) / n, abs=1e-6)


@given(some_ranks)
def test_what_holds_of_any_ranking(ranks):
    found = rank_metrics(ranks)
    recalls, ndcgs = [found[f"recall_at_{k}"] for k in CUTOFFS], [found[f"ndcg_at_{k}"] for k in CUTOFFS]
    assert recalls == sorted(recalls)
    assert ndcgs == sorted(ndcgs)
    assert all(0 <= ndcg <= recall <= 1 for recall, ndcg in zip(recalls, ndcgs, strict=True))
    assert found["recall_at_1"] == found["ndcg_at_1"]
    assert found["recall_at_1"] <= found["mrr"] <= found["recall_at_50"]
    assert found["mrr"] <= found["ndcg_at_50"] + 1e-6, "1 / rank never exceeds 1 / log2(rank + 1)"
    assert not any("@" in name for name in found)


@given(some_ranks, st.data())
def test_a_better_rank_never_lowers_a_metric(ranks, data):
    user = data.draw(st.integers(0, len(ranks) - 1))
    better = ranks.copy()
    better[user] = data.draw(st.integers(1, max(int(ranks[user]), 1))) if ranks[user] else data.draw(st.integers(1, 50))
    before, after = rank_metrics(ranks), rank_metrics(better)
    assert all(after[name] >= before[name] for name in before if "standard_error" not in name)


def test_perfect_and_hopeless_rankings():
    perfect, hopeless = rank_metrics(np.ones(7, np.int32)), rank_metrics(np.zeros(7, np.int32))
    assert {value for name, value in perfect.items() if "error" not in name} == {1.0}
    assert set(hopeless.values()) == {0.0}
    assert perfect["recall_at_10_standard_error"] == 0.0


@given(some_ranks)
def test_values_by_user_average_to_the_metric(ranks):
    found = rank_metrics(ranks)
    for metric in ("recall_at_5", "ndcg_at_20", "mrr"):
        assert values_by_user(metric, ranks).mean() == pytest.approx(found[metric], abs=1e-6)


def test_standard_error_of_a_share_is_the_binomial_one():
    hits = np.zeros(10_000)
    hits[:900] = 1
    assert standard_error(hits) == pytest.approx(math.sqrt(0.09 * 0.91 / 10_000), rel=1e-3)
    assert standard_error(np.array([1.0])) == 0.0


def test_no_users_give_zeros_rather_than_warnings():
    assert set(rank_metrics(np.zeros(0, np.int32)).values()) == {0.0}


def test_list_metrics_by_hand():
    lists = TopItems(np.array([[0, 1, -1], [0, 2, 3]], np.int32), np.zeros((2, 3), np.float32))
    counts = np.array([8, 4, 2, 2, 0])
    times = times_listed(lists, 5, 2)
    assert times.tolist() == [2, 1, 1, 0, 0]
    assert share_of_catalogue(times, counts) == 0.6
    assert mean_popularity(times, counts) == (8 + 4 + 8 + 2) / 4
    assert mean_percentile(times, counts) == pytest.approx((0.9 + 0.7 + 0.9 + 0.4) / 4)
    assert list_metrics(lists, counts)["distinct_items_at_10"] == 4


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 10**6))
def test_recommending_everything_covers_everything_at_median_popularity(n_items, n_users, seed):
    random = np.random.default_rng(seed)
    items = np.stack([random.permutation(n_items) for _ in range(n_users)]).astype(np.int32)
    times = times_listed(TopItems(items, np.zeros(items.shape, np.float32)), n_items, n_items)
    counts = random.integers(0, 9, n_items)
    assert share_of_catalogue(times, counts) == 1.0
    assert mean_percentile(times, counts) == pytest.approx(0.5, abs=1e-6)
