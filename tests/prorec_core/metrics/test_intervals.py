"""The paired bootstrap: its coverage where the truth is known, and what it must say of equal rankings."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prorec_core.errors import UserError
from prorec_core.metrics import intervals as module
from prorec_core.metrics.intervals import compare, compare_runs, paired_bootstrap

some_ranks = arrays.arrays(np.int32, st.integers(1, 60), elements=st.integers(0, 20))


def draw_pair(random, users):
    """Ranks of two rankings of the same users: the second finds 30% of targets, the first some of those and more."""
    second = np.where(random.random(users) < 0.3, random.integers(1, 11, users), 0)
    lost, won = random.random(users) < 0.2, random.random(users) < 0.15
    first = np.where(second > 0, np.where(lost, 0, second), np.where(won, random.integers(1, 11, users), 0))
    return first.astype(np.int32), second.astype(np.int32)


def test_the_interval_holds_the_true_difference_about_95_times_in_100():
    truth = 0.3 * 0.8 + 0.7 * 0.15 - 0.3
    random = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        found = compare(*draw_pair(random, 300), samples=400, seed=seed, metrics=["recall_at_10"])["recall_at_10"]
        held += found["low"] <= truth <= found["high"]
    assert 0.915 <= held / 400 <= 0.98


@given(some_ranks)
def test_equal_rankings_differ_by_nothing_for_sure(ranks):
    for found in compare(ranks, ranks).values():
        assert found == {"difference": 0.0, "low": 0.0, "high": 0.0}


@given(some_ranks, st.integers(0, 1000), st.data())
def test_interval_is_ordered_and_turns_round_with_the_rankings(ranks, seed, data):
    other = data.draw(arrays.arrays(np.int32, len(ranks), elements=st.integers(0, 20)))
    forth, back = compare(ranks, other, 200, seed), compare(other, ranks, 200, seed)
    for metric, found in forth.items():
        assert found["low"] <= found["high"]
        assert found["difference"] == pytest.approx(-back[metric]["difference"], abs=1e-6)


def test_multinomial_counts_equal_drawing_users_one_by_one():
    first, second = draw_pair(np.random.default_rng(1), 500)
    differences = (first > 0).astype(float) - (second > 0)
    random = np.random.default_rng(2)
    drawn = differences[random.integers(0, 500, (20_000, 500))].mean(axis=1)
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose(paired_bootstrap(differences, 20_000, seed=3), expected, atol=0.002)


def test_one_seed_one_interval_however_the_work_is_cut(monkeypatch):
    first, second = draw_pair(np.random.default_rng(4), 800)
    whole = compare(first, second, seed=5)
    assert compare(first, second, seed=5) == whole
    assert compare(first, second, seed=6) != whole
    monkeypatch.setattr(module, "_CELLS", 70)
    assert compare(first, second, seed=5) == whole


def test_rankings_of_other_users_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(np.ones(3, np.int32), np.ones(4, np.int32))


def run(ranks, users=(0, 1, 2), targets=(5, 6, 7)):
    columns = {"user": users, "target": targets, "split": ["test"] * 3, "rank_fused": ranks, "rank_dense": [0, 0, 0]}
    return pa.table(columns)


def test_runs_are_compared_user_by_user_whatever_the_order_of_rows():
    turned = run([3, 0, 1], users=(2, 1, 0), targets=(7, 6, 5))
    assert compare_runs(run([1, 0, 3]), turned)["ndcg_at_10"]["difference"] == 0.0
    better = compare_runs(run([1, 1, 3]), turned, scorers=("fused", "dense"))
    assert better["recall_at_10"]["difference"] == 1.0


@pytest.mark.parametrize(
    ("other", "scorer", "message"),
    [
        (run([1, 0, 3], targets=(5, 6, 8)), "fused", "do not rank the same test targets"),
        (run([1, 0, 3], users=(0, 1, 3)), "fused", "do not rank the same test targets"),
        (run([1, 0, 3]), "fuse", "Did you mean 'fused'"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(other, scorer, message):
    with pytest.raises(UserError, match=message):
        compare_runs(run([1, 0, 3]), other, scorers=("fused", scorer))


@given(some_ranks, st.integers(1, 4), st.data())
def test_targets_of_one_user_are_drawn_together(ranks, times, data):
    """As often as everybody's targets are repeated, as little is known of other users."""
    other = data.draw(arrays.arrays(np.int32, len(ranks), elements=st.integers(0, 20)))
    owners = np.repeat(np.arange(len(ranks)), times)
    once = compare(ranks, other, 100, 3)
    again = compare(np.repeat(ranks, times), np.repeat(other, times), 100, 3, owners=owners)
    for metric, found in once.items():
        assert again[metric] == pytest.approx(found, abs=1e-6)
