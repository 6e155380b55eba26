"""The program that is the local stack's Ray cluster, with another cluster in the place of Ray's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prorec.flows.stack import ray_head, state
from prorec.flows.stack.children import MARK
from prorec_core.errors import UserError


@pytest.fixture
def run(artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], bool]], int]]:
    """Run the program over a cluster that goes on as it is told; signals are as before afterwards."""
    state.folder().mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["ray_head", "1", "2"])
    monkeypatch.setattr(ray_head, "_SECONDS", 0.01)
    monkeypatch.setenv(MARK, "a stack")
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}

    def over(goes_on: Callable[[], bool]) -> int:
        @contextmanager
        def head(port: int, pages: int) -> Iterator[Callable[[], bool]]:
            assert (port, pages) == (1, 2) and MARK not in os.environ
            yield goes_on

        monkeypatch.setattr(ray_head, "head", head)
        return ray_head.main()

    yield over
    for kind, handler in before.items():
        signal.signal(kind, handler)


def _handle(kind: signal.Signals) -> None:
    handler = signal.getsignal(kind)
    assert callable(handler)
    handler(kind, None)


def _is_up() -> bool:
    return ray_head.came_up(datetime.now(UTC) - timedelta(minutes=1))


def test_it_goes_on_until_it_is_told_to_end(run: Callable[[Callable[[], bool]], int]) -> None:
    seen: list[bool] = []

    def goes_on() -> bool:
        seen.append(_is_up())
        if len(seen) == 3:
            # A signal itself would also reach the process that watches this one since an earlier test.
            _handle(signal.SIGTERM)
        return True

    assert not _is_up()
    assert run(goes_on) == 0
    assert seen[:3] == [True, True, True] and not _is_up()
    assert not ray_head.came_up(datetime.now(UTC) + timedelta(minutes=1))


def test_a_cluster_that_is_gone_is_told(
    run: Callable[[Callable[[], bool]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: False) == 1
    assert capsys.readouterr().err == "the cluster is gone\n" and not _is_up()


def test_what_does_not_start_is_told_in_one_line(
    run: Callable[[Callable[[], bool]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> bool:
        raise UserError("Ray does not start", place="on this machine")

    assert run(fails) == 2
    assert capsys.readouterr().err == "prorec: on this machine: Ray does not start.\n"
