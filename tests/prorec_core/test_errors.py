from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest

from prorec_core.errors import SeveralMistakesError, UserError, did_you_mean, one_line, with_line
from prorec_core.visible import visible


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no such file"), "no such file."),
        (UserError("no such file.", place="data.path"), "data.path: no such file."),
        (UserError("no such file", cure="Name another."), "no such file. Name another."),
        (UserError("unknown", place="x", cure="Did you mean 'y'?"), "x: unknown. Did you mean 'y'?"),
        (UserError("x: unknown. Did you mean 'y'?"), "x: unknown. Did you mean 'y'?"),
    ],
)
def test_an_error_is_one_line(error: UserError, line: str) -> None:
    assert str(error) == line
    assert "\n" not in str(error)


def test_an_error_keeps_its_parts_when_it_is_made_again() -> None:
    """Whoever hands an exception on makes it again from what `__reduce__` tells."""
    error = UserError("no such file", place="data.path", cure="Name another")
    for again in (copy.copy(error), copy.deepcopy(error)):
        assert type(again) is UserError
        assert (again.problem, again.place, again.cure) == ("no such file", "data.path", "Name another")
        assert str(again) == str(error)


def test_the_nearest_name_is_suggested_or_all_are_listed() -> None:
    known = ["residual_kmeans", "rq_vae"]
    assert did_you_mean("residual_kmean", known) == "Did you mean 'residual_kmeans'?"
    assert did_you_mean("zzz", iter(known)) == "Known: residual_kmeans, rq_vae"


def test_a_reason_is_one_line() -> None:
    assert one_line(UserError("wrong there", place="a.yaml", cure="Do this")) == "a.yaml: wrong there. Do this."
    assert one_line(SeveralMistakesError([UserError("one"), UserError("two")])) == "one. two."
    assert one_line(ValueError("bad\nshape")) == "ValueError: bad shape"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 500


def test_what_is_nobody_s_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    """Of one's own code the last line, also where a library raises below it."""
    (tmp_path / "mine.py").write_text("import json\n\ndef f(text):\n    return json.loads(text)\n")
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    assert spec and spec.loader
    spec.loader.exec_module(mine := importlib.util.module_from_spec(spec))
    with pytest.raises(ValueError) as raised:
        mine.f("{")
    assert with_line(raised.value) == f"{one_line(raised.value)} (mine.py, line 4)"
    assert with_line(ValueError("never raised")) == "ValueError: never raised"
    assert with_line(UserError("wrong")) == "wrong."


HOSTILE = "a\nb\r\x1b[2J\x9b1m\u202eevil\u200b\u2028\ud800\x00"


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    for error in (
        UserError(f"unknown item {HOSTILE}"),
        UserError("unknown", place=HOSTILE),
        UserError("unknown", cure=did_you_mean("zzz", [HOSTILE])),
        SeveralMistakesError([UserError(HOSTILE)]),
    ):
        assert str(error).isprintable() and "\\x1b[2J" in str(error) and "\\u202eevil" in str(error)
        assert str(copy.copy(error)) == str(error)
        assert one_line(error).isprintable()
    assert one_line(ValueError(HOSTILE)).isprintable()


def test_several_errors_are_a_line_each() -> None:
    error = SeveralMistakesError([UserError("one", place="a\nb"), UserError("two")])
    assert str(error).splitlines() == ["a\\nb: one.", "two."]
    assert str(copy.deepcopy(error)) == str(error) and isinstance(error, UserError)


def test_an_error_stays_short() -> None:
    assert len(str(UserError("x" * 10**6, place="y" * 10**6, cure="z" * 10**6))) < 5000
    known = [f"name-{number}" for number in range(10_000)]
    told = did_you_mean("x" * 10**6, known)
    assert len(told) < 700 and told.endswith(" more") and "name-3" in told


def test_what_is_printable_is_left_alone() -> None:
    for text in ("Crème brûlée № 5 – „gut“", "日本語", "[/] [bold] $x$ <b> 👍", "a\u00a0b"):
        assert visible(text) == text
    assert visible("a\tb\nc\x07", lines=True) == "a\tb\nc\\x07" and visible("a\tb\nc") == "a\\tb\\nc"
