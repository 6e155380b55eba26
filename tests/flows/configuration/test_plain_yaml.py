"""YAML that is more than sections, lists and plain values is one short line, at once."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prorec.flows.configuration.experiments import load
from prorec.flows.configuration.plain_yaml import DEEPEST, MOST_BYTES, MOST_VALUES, PlainYAMLError, parse, read_file
from prorec.flows.configuration.spaces import load_space
from prorec.flows.configuration.variants import load_variants
from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.visible import visible
from prorec_core.yaml_text import dump

_SECONDS = 5.0
"""A second on an idle machine; tests share theirs."""


def _bomb(doublings: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, doublings)]
    return "\n".join(lines)


HOSTILE = {
    "object": "name: !!python/object/apply:os.system ['true']",
    "own tag": "seed: !foo 3",
    "bare tag": "seed: ! 3",
    "binary": "name: !!binary aGVsbG8=",
    "set": "data: !!set {a, b}",
    "timestamp": "seed: !!timestamp 2024-01-01",
    "timestamp that is none": "seed: !!timestamp abc",
    "int that is none": "seed: !!int abc",
    "empty int": "seed: !!int ''",
    "float that is none": "seed: !!float abc",
    "bool that is none": "seed: !!bool perhaps",
    "mapping that is none": "data: !!map x",
    "list that is none": "data: !!seq x",
    "pairs": "data: !!pairs x",
    "tagged key": "!!int 3: 4",
    "key that is a list": "? [a, b]\n: 3",
    "key that is a section": "? {a: b}\n: 3",
    "key that is null": "~: 3",
    "key that is empty": "'': 3",
    "key that is a number": "3: 4",
    "key that is true": "true: 3",
    "key that is a date": "2024-01-01: 3",
    "key that refers to a list": "data: &a [x]\n*a : 3",
    "long key": f"? {'x' * 1000}\n: 3",
    "key of a terminal": '"\\e[2J[/]": 3',
    "key of two lines": '"a\\nb": 3',
    "key that is no text": '"\\ud800": 3',
    "5,000 digits": f"seed: {'9' * 5000}",
    "5,000 hexadecimal digits": f"seed: 0x{'f' * 5000}",
    "5,000 digits and a point": f"align: {{alpha: {'9' * 5000}.0}}",
    "a large exponent": "align: {alpha: 1e999999999}",
    "5,000 digits as a key": f"? {'9' * 5000}\n: 3",
    "deep list": f"data: {'[' * 3000}{']' * 3000}",
    "deep list that never ends": f"data: {'[' * 3000}",
    "deep section": "\n".join(" " * depth + "a:" for depth in range(500)),
    "deep in itself": f"data: {'{a: ' * 3000}1{'}' * 3000}",
    "2,000 fields": "\n".join(f"field{number}: {number}" for number in range(2000)),
    "2,000 fields in a section": "data:\n" + "\n".join(f"  field{number}: {number}" for number in range(2000)),
    "2,000 wrong values": f"data: {{text_columns: [{'1, ' * 2000}]}}",
    "100 wrong values": f"data: {{text_columns: [{'1, ' * 100}]}}",
    "alias bomb": _bomb(9),
    "alias bomb of keys": "a: &a {x: 1}\n" + "b: &b [" + "*a, " * 30_000 + "]",
    "alias of itself": "data: &a [*a]",
    "alias of nothing": "data: *a",
    "second document": "seed: 1\n---\nseed: 2",
    "second key": "seed: 1\nseed: 2",
    "tab": "data:\n\tpath: x",
    "control character": "name: a\x01b",
    "list": "- 3",
    "number": "3",
    "not a number": "align: {alpha: .nan}",
    "infinite": "align: {alpha: -.inf}",
    "sixties": "seed: 1:30",
    "version": "%YAML 3.0\n---\nseed: 1",
    "unended": "name: 'x",
    "escape that is none": '"\\UFFFFFFFF": 1',
    "value of a terminal": 'name: "\\e[31m"',
    "half a character": 'name: "\\ud800"',
    "path that no system knows": 'data: {path: "a\\0b"}',
    "column without a name": "data: {item_column: ''}",
    "path without end": f"data: {{path: {'x' * 5000}}}",
    "huge text": f"name: {'x' * 200_000}",
    "huge": "# nothing\n" * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_configuration_is_one_short_line_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    for read in (lambda: load(str(path)), lambda: load_variants(path), lambda: load_space(str(path))):
        began = time.process_time()
        with pytest.raises(UserError) as caught:
            read()
        told = str(caught.value)
        assert time.process_time() - began < _SECONDS
        assert visible(told, lines=True) == told and len(told) < 3000, told
        assert len(told.splitlines()) <= 6 and str(path) in told


ONE_LINE = [name for name in HOSTILE if name not in {"100 wrong values", "alias bomb of keys"}]


@pytest.mark.parametrize("name", ONE_LINE)
def test_an_experiment_that_cannot_be_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(HOSTILE[name], encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(str(path))
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 800, str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: !foo 3", "line 1: this is no valid YAML: the tag '!foo' is not taken."),
        ("a: 1\nseed: !!int 3", "line 2: this is no valid YAML: the tag '!!int' is not taken."),
        ("? [a]\n: 3", "line 1: this is no valid YAML: a key must be a text, not a list or a section."),
        (f"data: {'[' * 3000}", f"more than {DEEPEST} levels lie within one another."),
        (_bomb(9), f"it holds more than {MOST_VALUES:,} values."),
        ("data: &a [*a]", "'*a' stands within itself."),
        ("seed: 1\n---\nseed: 2", "line 2: this is no valid YAML: a second document begins."),
        ("a: 1\nname: a\x01b", "line 2: this is no valid YAML: the character U+0001 cannot stand in it."),
        ("data:\n\tpath: x", "Indent with blanks, not with tabs."),
        ("x" * (MOST_BYTES + 1), f"the file has more than {MOST_BYTES:,} bytes."),
        ("\n".join(f"field{n}: 1" for n in range(2000)), "2,000 unknown fields, the first 'field0', 'field1'"),
        (f"seed: {'9' * 5000}", "seed: must be a whole number (got '9999"),
        ("fie[ld: 3", "fie[ld: unknown field."),
        ("evaluate: {fusion_weights: [1.0e+300]}", "evaluate.fusion_weights.0: must be <= 1e+06 (got 1e+300)."),
    ],
)
def test_each_says_what_is_wrong_and_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: 1\n".encode("utf-16"), "it is no UTF-8 text (byte 1). Save it as UTF-8."),
        (b"seed: 1\nname: \xff\n", "line 2: the file cannot be read: it is no UTF-8 text (byte 15)."),
        (b"seed: 1\n\x00", "the character U+0000 cannot stand in it"),
    ],
)
def test_bytes_that_are_no_text_are_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load(str(path))
    assert message in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# only a comment", None),
        ("\ufeffseed: 1", {"seed": 1}),
        ("a: [1, -2, +3, 007, 1.5, 1e3, .5, 1., 2e-3]", {"a": [1, -2, 3, 7, 1.5, 1000.0, 0.5, 1.0, 0.002]}),
        ("a: [true, False, null, ~, ]", {"a": [True, False, None, None]}),
        ("a: ['1', \"true\", 'null']", {"a": ["1", "true", "null"]}),
        ("a: [yes, no, on, 2024-01-31, 2024-01-31 10:00:00, 1:30, 0x1F, 1_000]", None),
        ("a:\n", {"a": None}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("1: {null: 2, true: 3}", {"1": {"null": 2, "true": 3}}),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
        ("--- {a: 1}\n...\n", {"a": 1}),
    ],
)
def test_plain_values_are_read_as_they_stand(tmp_path: Path, text: str, value: Any) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    if "2024" in text:
        value = {"a": ["yes", "no", "on", "2024-01-31", "2024-01-31 10:00:00", "1:30", "0x1F", "1_000"]}
    found = read_file(path)
    assert found == value and repr(found) == repr(value)


def test_not_a_number_and_the_infinite_are_numbers() -> None:
    found = parse("[.nan, .inf, -.inf]")
    assert math.isnan(found[0]) and found[1:] == [math.inf, -math.inf]


def test_what_a_setting_changes_in_one_place_stays_in_the_other(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("collaborative: &same {epochs: 3}\nalign: *same\n")
    found = load(str(path), ["align.epochs=5"])
    assert (found.collaborative.epochs, found.align.epochs) == (3, 5)


def test_a_date_is_the_text_of_a_field_of_text(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: 2024-01-01\ndata: {user_column: no}\n")
    found = load(str(path), ["data.item_column=2024-01-02 10:00:00", "data.path=2024-01-03"])
    assert (found.name, found.data.user_column) == ("2024-01-01", "no")
    assert (found.data.item_column, found.data.path) == ("2024-01-02 10:00:00", "2024-01-03")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), _VALUES, max_size=4))
@settings(max_examples=200)
def test_what_is_dumped_is_read_or_refused_in_one_line(value: dict[str, Any]) -> None:
    text = dump(value)
    try:
        found = parse(text)
    except PlainYAMLError as error:
        assert "\n" not in str(error)
        return
    assert found == value


@given(st.from_regex(r"[-+]?[0-9.eExoy_:a-f~]{1,8}|[Nn]ull|[Tt]rue|[Nn]o|[-+]?\.(inf|nan)", fullmatch=True))
@example("1e5")
@example("0E0")
@example("0o17")
@example("a\x85b\u2028c\u2029\ufeffd")
def test_a_text_that_looks_like_a_number_is_read_as_the_text(text: str) -> None:
    assert parse(dump({"a": [text]})) == {"a": [text]}


@given(st.text(max_size=200) | st.text("{}[]:,&*!|>'\"%@`#-? \n\tab1~<", max_size=60))
@settings(max_examples=500)
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    try:
        parse(text)
    except PlainYAMLError as error:
        assert "\n" not in error.problem


@given(st.text(max_size=60) | st.text("{}[]:,&*!|>'\"%@`#-? \n\tab1~<.=", max_size=40))
@settings(max_examples=300)
def test_any_setting_is_an_experiment_or_one_line(text: str) -> None:
    for setting in (text, f"seed={text}", f"data.path={text}", f"data.text_columns={text}", f"evaluate={text}"):
        try:
            assert isinstance(load("demo", [setting]), Experiment)
        except UserError as error:
            assert visible(str(error), lines=True) == str(error)
            assert len(str(error).splitlines()) <= 6
