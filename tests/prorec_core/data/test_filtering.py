from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data.filtering import Count, Funnel, k_core
from prorec_core.errors import UserError

Pairs = list[tuple[int, int]]
pairs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=80)
least = st.integers(1, 4)


def columns(rows: Pairs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def largest_core(rows: Pairs, min_user: int, min_item: int) -> Pairs:
    """By brute force: take out one offending row at a time."""
    left = list(rows)
    while True:
        users, items = [user for user, _ in left], [item for _, item in left]
        bad = [row for row in left if users.count(row[0]) < min_user or items.count(row[1]) < min_item]
        if not bad:
            return left
        left.remove(bad[0])


@settings(deadline=None)
@given(pairs, least, least)
def test_core_is_a_fixed_point_in_which_everyone_has_enough(rows: Pairs, min_user: int, min_item: int) -> None:
    users, items = columns(rows)
    mask = k_core(users, items, min_user, min_item)
    users, items = users[mask], items[mask]
    for codes, minimum in ((users, min_user), (items, min_item)):
        assert (np.unique(codes, return_counts=True)[1] >= minimum).all()
    assert k_core(users, items, min_user, min_item).all()


@settings(deadline=None)
@given(pairs, least, least)
def test_core_is_the_largest_one(rows: Pairs, min_user: int, min_item: int) -> None:
    mask = k_core(*columns(rows), min_user, min_item)
    kept = [row for row, keep in zip(rows, mask, strict=True) if keep]
    assert sorted(kept) == sorted(largest_core(rows, min_user, min_item))


@given(pairs, pairs)
def test_counts_are_those_of_different_users_and_items(rows: Pairs, others: Pairs) -> None:
    found = Count.of(*columns(rows), 9)
    expected = {"users": len(dict(rows)), "items": len({item for _, item in rows}), "interactions": len(rows)}
    assert found.told() == expected
    of_others = [(user + 9, item) for user, item in others]
    both = (found + Count.of(*columns(of_others), 9)).told()
    assert both == Count.of(*columns(rows + of_others), 9).told()


def test_funnel_says_which_filter_took_what() -> None:
    funnel = Funnel(Count(2, np.array([1, 2])), "log.csv")
    funnel.note("rating", Count(1, np.array([1, 1])), "data.min_rating")
    with pytest.raises(UserError) as caught:
        funnel.note("k_core", Count(0, np.array([0, 0])), "data.min_user_interactions")
    message = str(caught.value)
    assert "log.csv" in message and "nothing is left of 3 interactions" in message
    assert "rating took 1" in message and "k_core took 2" in message and "data.min_user_interactions" in message
    assert [step["after"]["interactions"] for step in funnel.steps] == [2, 0]
    assert funnel.steps[0]["before"] == {"users": 2, "items": 2, "interactions": 3}


def test_where_nothing_is_left_what_was_odd_is_told_and_all_that_took_much() -> None:
    funnel = Funnel(Count(3, np.array([3, 3])), "log.csv", ["3 ids differ from another in blanks alone"])
    funnel.note("unknown_items", Count(1, np.array([1, 1])), "data.unknown_items")
    with pytest.raises(UserError) as told:
        funnel.note("k_core", Count(0, np.array([0, 0])), "data.min_user_interactions")
    assert "3 ids differ from another in blanks alone" in str(told.value)
    assert "Check data.unknown_items and data.min_user_interactions." in str(told.value)
