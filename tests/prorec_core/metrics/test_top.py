"""Top lists and ranks against slow, plain definitions of the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.data.sequences import from_lists
from prorec_core.evaluation.baselines import popularity_lists
from prorec_core.metrics.top import (
    TopItems,
    best_places,
    padded_histories,
    rank_of_target,
    top_from_scores,
)


def plain_list(scores, forbidden, k):
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item))
    kept = [item for item in order if item not in forbidden and scores[item] > -np.inf][:k]
    return kept + [-1] * (k - len(kept))


@st.composite
def scored_catalogues(draw):
    n_users, n_items = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    score = st.sampled_from([0.0, 1.0, 2.5, -3.0, -np.inf])  # few values, so that ties abound
    scores = draw(st.lists(st.lists(score, min_size=n_items, max_size=n_items), min_size=n_users, max_size=n_users))
    forbidden = draw(st.lists(st.lists(st.integers(0, n_items - 1), max_size=6), min_size=n_users, max_size=n_users))
    return scores, forbidden, draw(st.integers(1, 15))


@given(scored_catalogues())
def test_top_from_scores_is_a_stable_sort_of_what_is_allowed(case):
    scores, forbidden, k = case
    histories = from_lists([np.array(items, np.int32) for items in forbidden], len(scores[0]))
    given_scores = torch.tensor(scores)
    top = top_from_scores(given_scores, k, torch.from_numpy(padded_histories(histories)))
    assert top.items_UK.tolist() == [plain_list(*user, k) for user in zip(scores, forbidden, strict=True)]
    assert top.items_UK.dtype == np.int32
    assert top.scores_UK.dtype == np.float32
    for user, items in enumerate(top.items_UK):
        found = items >= 0
        assert top.scores_UK[user, found].tolist() == [scores[user][item] for item in items[found]]
        assert np.all(top.scores_UK[user, ~found] == -np.inf)
    assert torch.equal(given_scores, torch.tensor(scores)), "the scores given are left as they were"


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="not a number"):
        top_from_scores(torch.tensor([[1.0, float("nan"), 2.0]]), 2)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12).flatmap(
        lambda counts: st.tuples(
            st.just(counts),
            st.lists(st.lists(st.integers(0, len(counts) - 1), max_size=8), max_size=5),
            st.integers(1, 15),
            st.booleans(),
        )
    )
)
def test_popularity_lists(case):
    counts, histories, k, mask = case
    training = from_lists([np.repeat(np.arange(len(counts)), counts).astype(np.int32)], len(counts))
    asked = from_lists([np.array(h, np.int32) for h in histories], len(counts))
    lists = popularity_lists(training, asked, k, masked=mask)
    assert lists.items_UK.tolist() == [plain_list(counts, h if mask else [], k) for h in histories]
    listed = lists.items_UK >= 0
    assert np.array_equal(lists.scores_UK[listed], np.array(counts)[lists.items_UK[listed]])


@given(
    st.lists(st.permutations(range(6)), min_size=1, max_size=5).flatmap(
        lambda rows: st.tuples(
            st.just(rows), st.lists(st.integers(0, 8), min_size=len(rows), max_size=len(rows)), st.integers(0, 6)
        )
    )
)
def test_rank_of_target(case):
    rows, targets, length = case
    items = np.array(rows, np.int32)
    items[:, length:] = -1
    expected = [
        row.index(target) + 1 if target in row[:length] else 0
        for row, target in zip([list(r) for r in rows], targets, strict=True)
    ]
    assert rank_of_target(items, np.array(targets, np.int32)).tolist() == expected


def test_lists_and_scores_must_agree_in_shape():
    with pytest.raises(ValueError, match="must be equal"):
        TopItems(np.zeros((2, 3), np.int32), np.zeros((2, 4), np.float32))


@given(
    st.integers(1, 4).flatmap(
        lambda rows: st.tuples(
            st.lists(
                st.lists(st.sampled_from([0.0, 1.0, 2.5, -np.inf]), min_size=7, max_size=7),
                min_size=rows,
                max_size=rows,
            ),
            st.integers(1, 9),
        )
    )
)
def test_the_best_places_are_the_first_of_a_stable_sort(case):
    scores, count = case
    values, places = best_places(torch.tensor(scores), count)
    for row, found, told in zip(scores, places.tolist(), values.tolist(), strict=True):
        expected = sorted(sorted(range(7), key=lambda place: (-row[place], place))[:count])
        assert found == sorted(set(found)) and len(found) == len(expected)
        assert told == [row[place] for place in found]
        real = [place for place in expected if row[place] > -np.inf]
        assert [place for place in found if row[place] > -np.inf] == real


def test_what_is_no_number_counts_as_best():
    values, places = best_places(torch.tensor([[1.0, 1.0, float("nan"), 1.0, 0.0]]), 2)
    assert places.tolist() == [[0, 2]]
    assert values[0, 1].isnan()
