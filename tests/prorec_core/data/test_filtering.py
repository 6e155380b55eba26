from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data.filtering import Funnel, counts, k_core
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


@settings(deadline=None)
@given(pairs)
def test_counts_are_those_of_different_users_and_items(rows: Pairs) -> None:
    users, items = columns(rows)
    found = counts(pl.DataFrame({"user": users, "item": items}))
    expected = {"users": len(set(users.tolist())), "items": len(set(items.tolist())), "interactions": len(rows)}
    assert found == expected


def log(*rows: tuple[int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")


def test_funnel_says_which_filter_took_what() -> None:
    funnel = Funnel(log((0, 0, 0), (0, 1, 1), (1, 1, 1)), "log.csv")
    funnel.apply("rating", np.array([True, True, False]), "data.min_rating")
    with pytest.raises(UserError) as caught:
        funnel.apply("k_core", np.array([False, False]), "data.min_user_interactions")
    message = str(caught.value)
    assert "log.csv" in message and "nothing is left of 3 interactions" in message
    assert "rating took 1" in message and "k_core took 2" in message and "data.min_user_interactions" in message
    assert [step["after"]["interactions"] for step in funnel.steps] == [2, 0]
    assert funnel.steps[0]["before"] == {"users": 2, "items": 2, "interactions": 3}


def test_where_nothing_is_left_what_was_odd_is_told_and_all_that_took_much() -> None:
    frame = pl.DataFrame({"user": [0, 0, 1, 1, 2, 2], "item": [0, 1, 0, 1, 0, 1], "timestamp": [0, 1, 2, 3, 4, 5]})
    funnel = Funnel(frame, "log.csv", ["3 ids differ from another in blanks alone"])
    funnel.apply("unknown_items", pl.Series([True, True, False, False, False, False]), "data.unknown_items")
    with pytest.raises(UserError) as told:
        funnel.apply("k_core", pl.Series([False, False]), "data.min_user_interactions")
    assert "3 ids differ from another in blanks alone" in str(told.value)
    assert "Check data.unknown_items and data.min_user_interactions." in str(told.value)
