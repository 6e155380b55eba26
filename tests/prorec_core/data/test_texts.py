"""Texts as people read them: lists joined, also lists written as text; entities decoded, however deep."""

from __future__ import annotations

import datetime as dt
import html
import json
import time
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data.columns import as_ids
from prorec_core.data.texts import as_text, clean, words_of_list
from prorec_core.errors import UserError


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


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("a &;\t\u00a0\u2003\x1fé#3")) | st.text(), max_size=5))
def test_what_is_passed_over_is_clean(texts: list[str]) -> None:
    given = [f"x{text}" for text in texts]
    assert as_text(pl.Series("t", given, dtype=pl.String), "f").to_list() == [clean(text) for text in given]


def test_structures_are_no_text() -> None:
    with pytest.raises(UserError, match="has the type Struct"):
        as_text(pl.Series("t", [{"a": 1}]), "items.jsonl")


@given(st.text(alphabet=st.sampled_from("ab &;#x3amplt9\u00a0\t\n"), max_size=40) | st.text(max_size=20))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once) == once and once == once.strip() and "  " not in once


def test_entities_are_decoded() -> None:
    assert clean("5&quot; caf&eacute; &amp;amp; &#9733;") == '5" café & ★'


def clean_step_by_step(text: str) -> str:
    """The plain rule: decode until nothing changes."""
    while "&" in text and (decoded := html.unescape(text)) != text:
        text = decoded
    return " ".join(text.split())


PIECES = [
    "&",
    "amp;",
    "amp",
    "AMP;",
    "#38;",
    "#x26;",
    "#0038",
    ";",
    "lt;",
    "#",
    "x",
    "3",
    "8",
    "eacute;",
    "am",
    "not",
    " ",
    "p",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=30))
def test_decoding_is_as_step_by_step(text: str) -> None:
    assert clean(text) == clean_step_by_step(text)


@pytest.mark.parametrize("layer", ["amp;", "amp", "#38;", "#38", "#x26;", "AMP;", "#00038;", "amp;#38;AMP"])
def test_entities_nested_ten_thousand_times_take_no_time(layer: str) -> None:
    began = time.process_time()
    assert clean("&" + layer * 10_000 + ("" if layer.endswith(";") else ";") + "lt; b").endswith("< b")
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("text", ["&am" * 5000 + "&#112;" * 5000 + ";" * 5000, "&" * 50_000, "&#" + "9" * 20_000 + ";"])
def test_what_cannot_be_shortened_ends_all_the_same(text: str) -> None:
    began = time.process_time()
    clean(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("['Beauty', 'Hair Care']", ["Beauty", "Hair Care"]),
        ("[['Beauty', 'Skin & Care']]", ["Beauty", "Skin & Care"]),
        ('[["Beauty", "Hair"], ["Nails"]]', ["Beauty", "Hair", "Nails"]),
        (' ["Women\'s"] ', ["Women's"]),
        ("[\"Women's\", 'Men']", ["Women's", "Men"]),
        ("['It\\'s', 'a, b']", ["It's", "a, b"]),
        ('["caf\\u00e9", null, 3]', ["caf\u00e9", "3"]),
        ("['A', None, nan, 3]", ["A", "3"]),
        ("['A' 'B'\n 'C']", ["A", "B", "C"]),
        ("('A', ('B',))", ["A", "B"]),
        ("{'A', 'B'}", ["A", "B"]),
        ("[]", []),
        ("[[]]", []),
        ("['']", [""]),
    ],
)
def test_lists_written_as_text_are_their_words(text: str, words: list[str]) -> None:
    assert words_of_list(text) == words
    assert as_text(pl.Series("t", [text]), "f").to_list() == [", ".join(word for word in words)]


@pytest.mark.parametrize(
    "text",
    [
        "[REC]",
        "[REC] 2: the return",
        "(500) Days of Summer",
        "['tis the season]",
        "[1984]",
        "[true]",
        "['a''b']",
        "['a', 'b'",
        "['a'] ['b']",
        "['a')",
        "[__import__('os').system('true')]",
        "['a' + 'b']",
        "['a', {'b': 1}]",
        '{"a": 1}',
        '[{"a": "b"}]',
        '["\\ud800"]',
        "[" * 3000 + "'a'" + "]" * 2999,
        "[" + "'a'," * 20_000 + "]",
        "{",
        "",
    ],
)
def test_what_only_begins_like_a_list_stays(text: str) -> None:
    assert words_of_list(text) is None
    assert as_text(pl.Series("t", [text]), "f").to_list() == [text]


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4), max_size=4))
def test_every_list_of_lists_comes_back_from_its_text(lists: list[list[str]]) -> None:
    words = [word for each in lists for word in each]
    assert words_of_list(json.dumps(lists)) == words
    assert words_of_list(json.dumps(lists, ensure_ascii=False)) == words
    assert words_of_list(repr(lists)) == words


@given(st.lists(st.text("ab '", min_size=1, max_size=5), min_size=1, max_size=6))
def test_so_does_an_array(words: list[str]) -> None:
    assert words_of_list(str(np.array(words))) == words


@given(st.text("[](){}'\", \\ab1", max_size=30))
def test_nothing_that_looks_like_a_list_breaks_it(text: str) -> None:
    found = words_of_list(text)
    assert found is None or all(isinstance(word, str) for word in found)


def test_entities_may_stand_in_lists_and_around_their_words() -> None:
    texts = ["['Skin &amp; Care']", "[&quot;Hair&quot;, &quot;Nails&quot;]"]
    assert as_text(pl.Series("t", texts), "f").to_list() == ["Skin & Care", "Hair, Nails"]


def test_what_is_declared_missing_is_no_text() -> None:
    missing = ["nan", "None"]
    assert as_text(pl.Series("t", ["nan", " None ", "nano", "None of it"]), "f", missing).to_list() == [
        "",
        "",
        "nano",
        "None of it",
    ]
    assert as_text(pl.Series("t", [["A", "nan", "", None]]), "f", missing).to_list() == ["A"]
    assert as_text(pl.Series("t", [1995.0, float("nan"), 2.5, None]), "f").to_list() == ["1995", "", "2.5", ""]


def test_dates_are_texts_also_beyond_all_calendars() -> None:
    days = pl.Series("t", [0, 2**31 - 1, -(2**31), None], dtype=pl.Int32).cast(pl.Date)
    assert as_text(days, "f").to_list() == ["1970-01-01", "2147483647", "-2147483648", ""]
    for unit in ("ms", "us", "ns"):
        times = pl.Series("t", [0, 2**63 - 1, -(2**63)], dtype=pl.Int64).cast(pl.Datetime(unit, "UTC"))
        assert as_text(times, "f").to_list()[0].startswith("1970-01-01 00:00:00")
        assert all(as_text(times, "f").to_list())
        with pytest.raises(UserError, match="type Datetime"):
            as_ids(times[1:], "f")
    with pytest.raises(UserError, match="type Duration"):
        as_text(pl.Series("t", [dt.timedelta(1)]), "f")
