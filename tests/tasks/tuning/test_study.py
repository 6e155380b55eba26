"""A study keeps what ended, tries again what was left, never mixes settings and never tries the same twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from prorec.tasks.tuning.study import Attempt, Study, best_of, expect_same, open_study, path
from prorec_core import versions
from prorec_core.errors import UserError
from prorec_core.sections import Added, Renamed

RANGES = {"rate": FloatDistribution(1e-4, 1e-1, log=True), "dropout": FloatDistribution(0.0, 0.5, step=0.05)}
FIRST = {"rate": 0.01, "dropout": 0.3}
SETTINGS = {"align.epochs": 3, "data": "d" * 64}


@contextmanager
def opened(ranges: dict[str, Any] | None = None, *, prune: bool = False, **settings: Any) -> Iterator[Study]:
    with open_study("s", {**SETTINGS, **settings}, RANGES if ranges is None else ranges, 7, prune=prune) as study:
        yield study


def begin(study: Study) -> Attempt:
    attempt = study.next(FIRST)
    assert attempt is not None
    return attempt


def value_of(values: dict[str, Any]) -> float:
    """The objective: best at a dropout of 0.2."""
    return 1 - abs(values["dropout"] - 0.2) + values["rate"]


def run(study: Study, trials: int) -> None:
    while study.ended < trials:
        attempt = begin(study)
        attempt.complete({1: value_of(attempt.values)})


def tried(study: Study) -> list[dict[str, Any]]:
    return [trial["values"] for trial in study.trials()]


def test_a_study_that_was_interrupted_tries_what_one_without_interruption_does(
    artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as study:
        run(study, 12)
        whole = study.trials()
        assert [trial["trial"] for trial in whole] == list(range(1, 13)) and study.importances()
    assert whole[0]["values"] == FIRST, "the experiment as it stands comes first"
    best = best_of(whole)
    assert best is not None and best["value"] == max(value_of(trial["values"]) for trial in whole)
    for values in (trial["values"] for trial in whole):
        assert float(f"{values['rate']:.4g}") == values["rate"], "what is tried is what people can write"
        assert round(values["dropout"], 2) == values["dropout"]

    monkeypatch.setenv("PROREC_ARTIFACTS", str(artifacts_folder / "other"))
    for trials in (3, 3, 11):
        with opened() as study:
            run(study, trials)
            left = begin(study)
            left.report(0.25, 1)  # and then its process dies
    with opened() as study:
        run(study, 12)
        assert tried(study) == [trial["values"] for trial in whole]


def test_a_trial_that_was_left_is_tried_again_and_knows_its_epochs(artifacts_folder: Path) -> None:
    with opened() as study:
        run(study, 1)
        left = begin(study)
        left.report(0.25, 1)
        left.note("run", 0.0)
    for seen in ({1: 0.25}, {1: 0.25, 2: 0.5}):
        with opened() as study:
            assert study.ended == 1, "what was left does not count"
            again = begin(study)
            assert (again.place, again.values, again.seen) == (2, left.values, seen)
            again.report(0.5, 2)  # and is left once more
    with opened() as study:
        again = begin(study)
        again.complete({1: 0.25, 2: 0.5, 3: 0.125})
        found = study.trials()[-1]
        assert (found["trial"], found["state"], found["value"], found["epochs"]) == (2, "complete", 0.5, 3)
        assert begin(study).values != left.values


def test_one_whose_process_died_is_tried_again_while_others_go_on(artifacts_folder: Path) -> None:
    with opened() as study:
        first, second = begin(study), begin(study)
        first.report(0.25, 1)
        assert study.recover(first) and not study.recover(first), "once"
        second.complete({1: 0.5})
        assert [trial["trial"] for trial in study.trials()] == [2], "each keeps the number that it is known by"
        again, third = begin(study), begin(study)
        assert (again.place, again.values, again.seen) == (1, first.values, {1: 0.25})
        assert third.place == 3 and third.values not in (first.values, second.values)
        assert study.recover(again)
        third.complete({1: 0.25})
        assert not study.recover(third), "what had ended is not tried again"
        last = begin(study)
        assert (last.place, last.values) == (1, first.values)
        last.complete({1: 0.25, 2: 0.75})
        assert [(trial["trial"], trial["value"]) for trial in study.trials()] == [(1, 0.75), (2, 0.5), (3, 0.25)]


def test_trials_that_fail_count_and_stay_away_from_the_best(artifacts_folder: Path) -> None:
    with opened() as study:
        begin(study).fail("UserError: the loss is no longer a number")
        assert study.ended == 1 and best_of(study.trials()) is None
        run(study, 2)
    with opened() as study:
        first, second = study.trials()
        assert (first["state"], first["value"], first["reason"]) == (
            "failed", None, "UserError: the loss is no longer a number",
        )  # fmt: skip
        assert second["state"] == "complete" and best_of([first, second]) == second


def test_nothing_is_tried_twice_and_an_exhausted_space_says_so(artifacts_folder: Path) -> None:
    ranges = {"layers": IntDistribution(1, 3), "kind": CategoricalDistribution(["a", "b"])}
    with opened(ranges) as study:
        for number in range(1, 7):
            attempt = study.next({"layers": 9, "kind": "a"})
            assert attempt is not None and attempt.place == number
            attempt.complete({1: 0.1 * number})
        assert study.next({}) is None
        assert len({(values["layers"], values["kind"]) for values in tried(study)}) == 6


def test_a_trial_far_behind_the_others_ends_early(artifacts_folder: Path) -> None:
    epochs = 8
    with opened(prune=True) as study:
        for _ in range(4):
            attempt = begin(study)
            assert not any(attempt.report(0.1 * epoch, epoch) for epoch in range(1, epochs + 1))
            attempt.complete({epoch: 0.1 * epoch for epoch in range(1, epochs + 1)})
        behind = begin(study)
        told = [behind.report(0.01 * epoch, epoch) for epoch in range(1, epochs + 1)]
        assert not any(told[:4]) and all(told[4:]), "it is given some epochs to show what it can"
        behind.prune()
        ahead = begin(study)
        assert not any(ahead.report(0.2 * epoch, epoch) for epoch in range(1, epochs + 1))
        found = study.trials()[-1]
        assert (found["state"], found["epochs"]) == ("pruned", epochs) and study.ended == 5
        best = best_of(study.trials())
        assert best is not None and best["state"] == "complete"
    with opened() as study:
        assert not begin(study).report(0.0, epochs), "it was asked not to"


def test_other_settings_are_told(artifacts_folder: Path) -> None:
    expect_same("s", SETTINGS)
    assert not path("s").exists()
    with opened() as study:
        run(study, 1)
    expect_same("s", SETTINGS)
    others = {"align.epochs": 4, "data": "e" * 64, "new": {"low": 1, "high": 2}}
    with pytest.raises(UserError) as error, opened(**others):
        pass
    text = str(error.value)
    assert text.startswith(
        "study s: the study exists with other settings: align.epochs was 3, is 4; "
        "data was dddddddd, is eeeeeeee; new was nothing, is low 1, high 2."
    )
    assert "--study NAME" in text and str(path("s")) in text
    with pytest.raises(UserError, match=r"other settings, by another version of prorec: program was"):
        expect_same("s", {**SETTINGS, "program": "f" * 64})
    with pytest.raises(UserError, match="exists with other settings"):
        expect_same("s", {**SETTINGS, **others})
    with opened() as study:
        assert study.ended == 1, "it is as it was"


def test_one_process_at_a_time_and_only_files_that_are_studies(artifacts_folder: Path) -> None:
    with opened(), pytest.raises(UserError, match="another process is at work on this study"), opened():
        pass
    path("t").write_bytes(b"no database at all, though it is long enough to be one " * 100)
    with pytest.raises(UserError, match=r"t\.db: the study cannot be read"):
        expect_same("t", {})
    for name in ("", "../t", "a b"):
        with pytest.raises(UserError, match="cannot be a name"):
            path(name)


def test_what_a_failed_trial_had_reached_is_no_value(artifacts_folder: Path) -> None:
    with opened() as study:
        failing = begin(study)
        failing.report(0.75, 1)
        failing.fail("the loss is no longer a number")
        run(study, 2)
        first, second = study.trials()
        assert (first["state"], first["value"], first["epochs"]) == ("failed", None, 1)
        assert best_of([first, second]) == second


def test_a_damaged_study_is_refused_in_one_line_and_an_empty_one_begun_anew(
    artifacts_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened() as study:
        run(study, 2)
    content = path("s").read_bytes()
    path("t").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.db: the file is of another study, s\."):
        expect_same("t", SETTINGS)
    path("s").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"s\.db: the study cannot be read \(.*\)\. Choose another --study"):
        expect_same("s", SETTINGS)
    path("s").write_bytes(b"")
    with opened() as study:
        assert study.ended == 0
    assert "the file is empty; the study is begun anew" in caplog.text


def test_a_study_of_an_earlier_version_goes_on_where_only_names_and_added_fields_differ(
    artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as study:
        run(study, 2)
    step = (Renamed("align.epochs", "align.rounds"), Added("align.graph_depth", 1), Added("align.unread", 1))
    monkeypatch.setattr(versions, "STEPS", (*versions.STEPS, step))
    monkeypatch.setattr(versions, "VERSION", versions.VERSION + 1)
    now = {"align.rounds": 3, "data": "d" * 64, "align.graph_depth": 1}
    for _ in range(2):
        with open_study("s", now, RANGES, 7, prune=False) as study:
            assert study.ended == 2
    with pytest.raises(UserError, match=r"align\.graph_depth was 1, is 2\. "):
        expect_same("s", {**now, "align.graph_depth": 2})
    monkeypatch.setattr(versions, "VERSION", versions.VERSION - 1)
    with pytest.raises(UserError, match="study s: a newer version of prorec wrote this"):
        expect_same("s", now)
