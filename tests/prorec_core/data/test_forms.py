"""The same id in other forms, and words that mean nothing."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data import forms
from prorec_core.data.columns import Field
from prorec_core.data.forms import form_of, in_other_forms, remarks_on_values

SAME_AS_7 = ["7.0", "7.00", "7.", "007", " 7", "7 ", "7\u00a0", "\u200b7", "7\ufeff", "+7", "7e0", "'7'", '"7"', "7\r"]


@pytest.mark.parametrize("written", [*SAME_AS_7, "\uff17"])
def test_numbers_in_other_forms_meet(written: str) -> None:
    assert in_other_forms(pl.Series([written]), pl.Series(["7", "8"])).rows() == [(written, "7")]
    assert in_other_forms(pl.Series(["7"]), pl.Series([written, "8"])).rows() == [("7", written)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")),
        ("ABC-1", "abc-1"),
        ("Stra\u00dfe ", "Stra\u00dfe"),
        ("1e3", "1000"),
        ("1.6E+09", "1600000000"),
        ("-05", "-5"),
        ("000", "0"),
    ],
)
def test_other_forms_meet(one: str, other: str) -> None:
    assert in_other_forms(pl.Series([one]), pl.Series([other])).rows() == [(one, other)]


@pytest.mark.parametrize(
    ("one", "other"), [("7.5", "7"), ("a7", "a07"), ("70", "7"), ("", "0"), ("1e3x", "1000"), ("1e99", "1")]
)
def test_other_ids_do_not(one: str, other: str) -> None:
    assert in_other_forms(pl.Series([one]), pl.Series([other])).is_empty()


def test_what_tells_known_ids_apart_decides_nothing() -> None:
    known = pl.Series(["aB", "Ab", "7", "07", "x"])
    assert in_other_forms(pl.Series(["ab", "007", "X"]), known).rows() == [("X", "x")]


@given(st.integers(0, 10**12), st.integers(0, 4), st.integers(0, 3))
def test_a_whole_number_has_one_form(number: int, zeros: int, decimals: int) -> None:
    written = "0" * zeros + str(number) + ("." + "0" * decimals if decimals else "")
    assert form_of(pl.Series([written])).to_list() == [str(number)]


@given(st.lists(st.text(max_size=12), max_size=8, unique=True))
def test_any_text_has_a_form_that_is_its_own(texts: list[str]) -> None:
    forms = form_of(pl.Series("id", texts, dtype=pl.String))
    assert forms.len() == len(texts) and not forms.has_nulls()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from("07a.eE+-'\" \u00a0\u00e9"), max_size=6) | st.text(max_size=6), max_size=6, unique=True
    )
)
def test_what_is_passed_over_has_no_other_form(texts: list[str]) -> None:
    ids = pl.Series("id", texts, dtype=pl.String)
    assert form_of(ids).to_list() == forms._form_of(ids).to_list() and form_of(ids).name == "id"


@pytest.mark.parametrize("word", [*forms._WORDS_FOR_NOTHING, "true", "False", "[1]", "{}"])
def test_every_word_that_is_told_is_found(word: str) -> None:
    for written in (word, f"\t{word} ", word.upper()):
        assert "has '" in told(["a", written])


def told(values: list[str], ids: bool = True) -> str:
    found = pl.Series("item_id", values).value_counts(name="rows").sort("item_id")
    field = Field("item_id", "log.csv")
    return " / ".join(remarks_on_values(found["item_id"], found["rows"], field, ids=ids))


def test_words_for_nothing_are_counted_and_the_setting_is_named() -> None:
    text = told(["a", "nan", "None", "nan", "NULL", "<NA>"], ids=False)
    assert "log.csv: column 'item_id' has 'nan' in 2 rows, '<NA>' in 1 row, 'NULL' in 1 row and 1 more" in text
    assert "data.missing: ['<NA>', 'NULL', 'None', 'nan']" in text
    assert told(["a", "nano", "nonesuch", "", "a-b"]) == ""


def test_ids_that_are_values_of_json_are_told() -> None:
    assert "'[1, 2]' in 1 row, 'true' in 1 row, which look like no ids" in told(["true", "[1, 2]", "a[1]"])
    assert told(["true", "[1, 2]"], ids=False) == ""


@pytest.mark.parametrize("twin", SAME_AS_7)
def test_ids_of_one_column_that_differ_in_form_alone_are_told(twin: str) -> None:
    text = told(["7", "8", twin, twin])
    assert "has 2 ids that differ from another in blanks" in text and "'7'" in text and "\n" not in text
    assert "\r" not in text and "\u00a0" not in text


def test_accents_that_look_alike_are_spelt_out() -> None:
    text = told(["e\u0301", "\u00e9"])
    assert "'e\\u0301' and '\\xe9'" in text
