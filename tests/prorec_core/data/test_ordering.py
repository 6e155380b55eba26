from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data import ordering
from prorec_core.data.ordering import in_order_of_time, order_of, shuffled_ties, ties_share, without_duplicates

Rows = list[tuple[int, int, int]]
logs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 2)), max_size=60)
numbers = st.integers(-(2**62), 2**62 - 1) | st.integers(-3, 3)


def log(*rows: tuple[int, int, int]) -> pl.DataFrame:
    types = {"user": pl.Int32, "item": pl.Int32, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema=types, orient="row")


@pytest.fixture(params=[1, 7, 1 << 22], autouse=True)
def blocks(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of blocks, the result is the same."""
    monkeypatch.setattr(ordering, "_BLOCK", request.param)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 2)), max_size=50), st.sampled_from([63, 20, 7]))
def test_order_is_that_of_the_keys_and_then_of_the_rows(rows: Rows, bits: int) -> None:
    keys = np.array(rows, np.int64).reshape(-1, 3).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "_BITS", bits)
        assert order_of(*keys).tolist() == sorted(range(len(rows)), key=lambda row: rows[row])


def test_keys_that_span_all_whole_numbers_are_ordered() -> None:
    key = np.array([2**63 - 1, -(2**63), 0, -1, -(2**63)])
    assert order_of(key).tolist() == [1, 4, 3, 2, 0]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("keep", [(0, 1, 3), (0, 1, 5), (0, 2, 5), (0, 1, 5), (1, 1, 5)]),
        ("exact", [(0, 1, 3), (0, 1, 5), (0, 2, 5), (1, 1, 5)]),
        ("first", [(0, 1, 3), (0, 2, 5), (1, 1, 5)]),
    ],
)
def test_duplicates(policy: str, expected: Rows) -> None:
    ordered = in_order_of_time(log((0, 1, 5), (0, 2, 5), (0, 1, 5), (0, 1, 3), (1, 1, 5)))
    assert ordered.filter(pl.Series(without_duplicates(ordered, policy))).rows() == expected


@settings(deadline=None)
@given(logs)
def test_the_first_of_what_is_repeated_stays(rows: Rows) -> None:
    ordered = in_order_of_time(log(*rows), numbered=True)
    for policy, key in (("exact", ["user", "item", "timestamp"]), ("first", ["user", "item"])):
        kept = ordered.filter(pl.Series(without_duplicates(ordered, policy), dtype=pl.Boolean))
        assert kept.equals(ordered.unique(key, keep="first", maintain_order=True))


@settings(deadline=None)
@given(logs.filter(bool))
def test_ties_stay_as_in_the_input_or_are_shuffled_by_the_seed(rows: Rows) -> None:
    frame = log(*rows)
    ordered = in_order_of_time(frame)
    assert ordered.rows() == sorted(rows, key=lambda row: (row[0], row[2]))
    numbered = in_order_of_time(frame, numbered=True)
    assert numbered.drop("row").equals(ordered) and frame[numbered["row"]].equals(ordered)
    shuffled = shuffled_ties(numbered, seed=3)
    drawn = frame[np.random.default_rng(3).permutation(len(rows))]
    assert shuffled.rows() == sorted(drawn.rows(), key=lambda row: (row[0], row[2]))
    assert ties_share(ordered) == round(ordered.select(pl.struct("user", "timestamp").is_duplicated().mean()).item(), 6)


@settings(deadline=None)
@given(logs.filter(bool), st.randoms(use_true_random=False))
def test_filters_between_do_not_change_how_what_is_left_is_shuffled(rows: Rows, chance: Any) -> None:
    frame = log(*rows)
    keep = pl.Series([chance.random() < 0.7 for _ in rows])
    ordered = in_order_of_time(frame, numbered=True)
    after = shuffled_ties(ordered.filter(keep[ordered["row"].to_list()]), seed=0)
    assert after.equals(shuffled_ties(in_order_of_time(frame.filter(keep), numbered=True), seed=0))


def test_shuffling_moves_ties() -> None:
    frame = log(*[(0, item, 7) for item in range(50)])
    assert not shuffled_ties(in_order_of_time(frame, numbered=True), seed=0).equals(frame)
