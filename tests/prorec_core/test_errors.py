from __future__ import annotations

import copy

import pytest

from prorec_core.errors import UserError, did_you_mean, one_line


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
    assert one_line(UserError("wrong\n there", place="a.yaml", cure="Do this")) == "a.yaml: wrong there. Do this."
    assert one_line(ValueError("bad\nshape")) == "ValueError: bad shape"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 500
