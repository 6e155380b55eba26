from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.data.columns import as_ids, as_ratings, as_text, as_timestamps, clean, need_columns
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError

NEW_YEAR = 1_388_534_400


@pytest.mark.parametrize(
    ("values", "expected", "unit"),
    [
        ([3, 1], [3, 1], "as given"),
        (["3", " 1"], [3, 1], "as given"),
        ([881250949.0, 891717742.0], [881250949, 891717742], "seconds"),
        (["881250949.0", "1e9"], [881250949, 10**9], "seconds"),
        ([1388534400.25, 2.0], [NEW_YEAR * 10**6 + 250_000, 2_000_000], "microseconds"),
        ([dt.date(2014, 1, 1)], [NEW_YEAR], "seconds"),
        ([dt.datetime(2014, 1, 1, 0, 0, 5)], [NEW_YEAR + 5], "seconds"),
        ([dt.datetime(2014, 1, 1, 0, 0, 0, 7)], [NEW_YEAR * 10**6 + 7], "microseconds"),
        (["2014-01-01", "2014-01-02"], [NEW_YEAR, NEW_YEAR + 86400], "seconds"),
        (["2014-01-01T00:00:05Z", "2014-01-01T01:00:00+01:00"], [NEW_YEAR + 5, NEW_YEAR], "seconds"),
        (["2014-01-01 00:00:05"], [NEW_YEAR + 5], "seconds"),
    ],
)
def test_times_are_kept_without_loss(values: list[Any], expected: list[int], unit: str) -> None:
    times, found = as_timestamps(pl.Series("timestamp", values), "log.csv")
    assert times.dtype == pl.Int64 and times.to_list() == expected and found == unit


@given(st.lists(st.integers(0, 2**62), min_size=1))
def test_whole_numbers_survive_as_numbers_and_as_strings(values: list[int]) -> None:
    for column in (pl.Series(values, dtype=pl.Int64), pl.Series([str(value) for value in values])):
        assert as_timestamps(column, "log.csv")[0].to_list() == values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, None], "has no time in row 2"),
        ([1, 2, -3], "negative time in row 3: '-3'"),
        ([0.5, float("nan")], "no time in row 2"),
        ([float("inf")], "no time in row 1"),
        (["1", "soon"], "no time in row 2: 'soon'"),
        (["2014-01-01", "soon"], "no time in row 2: 'soon'"),
        (["soon", "later"], "no time in row 1: 'soon'"),
        (["1960-01-01"], "negative time in row 1"),
        ([2**63], "no time in row 1"),
        ([True], "has the type Boolean"),
        ([[1]], "has the type List"),
    ],
)
def test_what_is_no_time_is_refused_by_row(values: list[Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        as_timestamps(pl.Series("timestamp", values), "data/log.csv")
    message = str(caught.value)
    assert message.startswith("data/log.csv: column 'timestamp'") and said in message and "\n" not in message


def test_ids_are_strings_or_whole_numbers() -> None:
    assert as_ids(pl.Series("u", [7, 8]), "f").to_list() == ["7", "8"]
    assert as_ids(pl.Series("u", ["007"]), "f").to_list() == ["007"]
    for bad, said in (([1.5], "type Float64"), (["a", None], "no id in row 2"), (["", "a"], "no id in row 1")):
        with pytest.raises(UserError, match=said):
            as_ids(pl.Series("u", bad), "f")


def test_ratings() -> None:
    assert as_ratings(pl.Series("r", ["4", None, "NaN"]), "f").to_list() == [4.0, None, None]
    with pytest.raises(UserError, match="no number in row 2: 'good'"):
        as_ratings(pl.Series("r", ["4", "good"]), "f")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["Soap &amp; Glory", None], ["Soap & Glory", ""]),
        ([" a\t b\n"], ["a b"]),
        ([["Beauty", "Nails"], [], None], ["Beauty, Nails", "", ""]),
        ([[["A", "B"], ["C"]]], ["A, B, C"]),
        ([[1, None, 2]], ["1, 2"]),
        ([1995, None], ["1995", ""]),
        ([None], [""]),
    ],
)
def test_text(values: list[Any], expected: list[str]) -> None:
    assert as_text(pl.Series("t", values, strict=False), "f").to_list() == expected


def test_structures_are_no_text() -> None:
    with pytest.raises(UserError, match="has the type Struct"):
        as_text(pl.Series("t", [{"a": 1}]), "items.jsonl")


@given(st.text(alphabet=st.sampled_from("ab &;#x3amplt9\u00a0\t\n"), max_size=40) | st.text(max_size=20))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once) == once and once == once.strip() and "  " not in once


def test_entities_are_decoded() -> None:
    assert clean("5&quot; caf&eacute; &amp;amp; &#9733;") == '5" café & ★'


def test_missing_column_names_those_that_exist_and_the_nearest() -> None:
    table = RawTable.of_frame(pl.DataFrame({"uid": [1], "item": [1]}), "log.csv")
    with pytest.raises(UserError) as caught:
        need_columns(table, {"uid": "data.user_column", "items": "data.item_column"})
    assert str(caught.value) == (
        "log.csv: there is no column 'items'. Set data.item_column to one of: uid, item (nearest: 'item')."
    )
