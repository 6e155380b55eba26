"""What will not fit is told before the work, in one line with the setting that helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from prorec.tasks.execution import needs
from prorec.tasks.execution.needs import Part, expect_room
from prorec.tasks.local.memory import Room
from prorec_core.errors import UserError

GIB = 2**30
NEED = [
    Part("item vectors", 3 * GIB, "a smaller dim", on_device=True, certain=True),
    Part("texts", 1 * GIB, "shorter texts", certain=True),
    Part("scores", 4 * GIB, "fewer items", on_device=True),
]


@pytest.fixture
def set_room(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    def put(available: float, total: float) -> None:
        monkeypatch.setattr(needs, "room", lambda: Room(int(available * GIB), int(total * GIB)))

    return put


def test_enough_is_not_mentioned(set_room: Any) -> None:
    set_room(10.1, 12)
    assert expect_room("align", NEED, "cpu") == []
    assert expect_room("align", [], "cpu") == []


def test_what_is_close_is_a_warning_with_what_helps(set_room: Any) -> None:
    set_room(9.9, 12)
    (line,) = expect_room("align", NEED, "cpu")
    assert line == (
        "it needs about 8.0 GiB of memory, of which 9.9 GiB are available; 4.0 GiB are for scores. "
        "What helps: fewer items"
    )
    # More than there is in all, but not for certain.
    set_room(2, 4)
    assert len(expect_room("align", NEED, "cpu")) == 1


def test_what_cannot_be_is_an_error(set_room: Any) -> None:
    set_room(2, 3.9)
    with pytest.raises(
        UserError,
        match=r"^align: it needs at least 4.0 GiB of memory \(3.0 GiB for item vectors\), "
        r"and there are 3.9 GiB in all. What helps: a smaller dim.$",
    ):
        expect_room("align", NEED, "cpu")


def test_what_lies_on_a_device_is_held_against_its_memory(set_room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    set_room(2, 3)
    monkeypatch.setattr(needs, "cuda_index", lambda device: 1)
    monkeypatch.setattr(needs, "device_room", lambda index: Room(100 * GIB, 140 * GIB))
    assert expect_room("align", NEED, "cuda:1") == []
    monkeypatch.setattr(needs, "device_room", lambda index: Room(6 * GIB, 140 * GIB))
    (line,) = expect_room("align", NEED, "cuda:1")
    assert "about 7.0 GiB of memory of the device cuda:1, of which 6.0 GiB are available" in line


def test_where_nobody_knows_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "room", lambda: None)
    assert expect_room("align", NEED, "cpu") == []
