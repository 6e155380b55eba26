"""Trials in other processes: one whose process dies is tried again by another, and not for ever."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prorec.flows import trial
from prorec.flows.local.crew import Job, Outcome
from prorec.tasks.execution.stage import FlowTracking
from prorec.tasks.tuning.study import Attempt
from prorec_core.config import Experiment
from prorec_core.errors import MachineError

DIED = Outcome(reason="its process died", died=True)


def _tried(monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcome]) -> tuple[list[str], list[str]]:
    """What ended and what was left, where one trial after the other comes to these."""
    monkeypatch.setattr(trial, "announce", lambda flow: "run")
    monkeypatch.setattr(trial, "environment", dict)
    monkeypatch.setattr(trial, "tidy_first", lambda signs: {})
    monkeypatch.setattr(trial, "get_run_logger", lambda: SimpleNamespace(info=lambda *_: None))
    todo, ended, left = ["first", "second"], list[str](), list[str]()

    def begin(at_work: int) -> tuple[Attempt, Experiment] | None:
        if not todo:
            return None
        name = todo.pop(0)
        return cast("Attempt", SimpleNamespace(place=1 + (name == "second"), values={}, name=name)), Experiment()

    def over(attempt: Attempt, reason: str) -> None:
        left.append(reason)
        todo.insert(0, cast("Any", attempt).name)

    class Crew:
        def work(self, following: Callable[[], Job | None], over: Callable[[Job, Outcome], None]) -> None:
            while job := following():
                over(job, outcomes.pop(0))

    @contextmanager
    def crew(*_: object) -> Any:
        yield Crew()

    members = cast("Any", SimpleNamespace(crew=crew, count=1, mine=lambda experiment: experiment))
    trial.side_by_side(
        members,
        cast("Any", SimpleNamespace(varied=("align",))),
        {},
        FlowTracking(experiment_id="1", run_id="2"),
        begin,
        lambda attempt, outcome: ended.append(outcome),
        over,
    )
    return ended, left


def test_a_trial_whose_process_died_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, left = _tried(monkeypatch, [DIED, DIED, Outcome("first"), DIED, Outcome("second")])
    assert ended == ["first", "second"] and left == [DIED.reason] * 3


def test_one_that_dies_again_and_again_ends_the_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match="trial 1, 3 times: its process died"):
        _tried(monkeypatch, [DIED] * 3)
