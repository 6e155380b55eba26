"""What a run shows: a live table on a screen, plain lines elsewhere, and the result at the end."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from prorec.flows.terminal.display import LiveDisplay, PlainDisplay, _Row, make_display, plain_table, result_table
from prorec.tasks.execution.events import (
    Beside,
    Notice,
    PartEnded,
    PartStarted,
    StageEnded,
    StageProgress,
    StageStarted,
    as_json,
    from_json,
)
from prorec_core.artifacts import ArtifactRef
from prorec_core.progress import Progress
from prorec_core.reports.tables import new_item_line, new_item_rows

REF = ArtifactRef(stage="align", digest="d", run_id="r", uri="/u")
EVENTS = (
    StageStarted("align"),
    StageProgress("align", Progress(1, 3, "epoch", {"loss": 2.5, "validation_ndcg_at_10": 0.125})),
    Notice("preprocess: [made] again"),
    StageProgress("align", Progress(2, 3, "epoch", {"loss": 1.5, "validation_ndcg_at_10": 0.25})),
)


def _screen(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width)


def test_a_second_pass_over_the_same_users_has_a_pace_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("prorec.flows.terminal.display.time.monotonic", lambda: clock[0])
    row = _Row()
    row.take(StageStarted("evaluate"))
    left = []
    for clock[0], step in [(50.0, 50), (100.0, 100), (130.0, 20), (140.0, 30), (150.0, 1), (151.0, 2)]:
        row.take(StageProgress("evaluate", Progress(step, 100, "user" if clock[0] < 145 else "group")))
        left.append(row.seconds_left())
    assert left == [50.0, None, None, 70.0, None, 98.0], "the first step of a pass tells no pace: not 0 s"


@pytest.mark.parametrize("width", [100, 40])
def test_a_screen_shows_each_stage_in_one_table(width: int) -> None:
    console = _screen(width)
    display = LiveDisplay(["preprocess", "align"], console)
    with display:
        display.say("starting")
        for event in EVENTS:
            display.handle(event)
        running = Console(file=io.StringIO(), width=100)
        running.print(display._table())
        shown = running.file.getvalue()  # type: ignore[attr-defined]
        assert "epoch 2/3" in shown and "left" in shown and "loss 1.5" in shown and "ndcg@10 0.25" in shown
        assert "starting" not in shown
        display.handle(StageEnded(REF, cached=True, seconds=0.4))
    assert "[made]" in console.file.getvalue()  # type: ignore[attr-defined]
    end = Console(file=io.StringIO(), width=100)
    end.print(display._table())
    assert "cached" in end.file.getvalue() and "0.4 s" in end.file.getvalue()  # type: ignore[attr-defined]


def test_elsewhere_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay() as display:
        display.say("")
        for event in EVENTS:
            display.handle(event)
        for step in range(1, 1001):
            display.handle(StageProgress("align", Progress(step, 1000, "user")))
        display.handle(StageEnded(REF, cached=False, seconds=75))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "align: started" and lines[-1] == "align: done in 1 min 15 s"
    assert lines[1].startswith("align: epoch 1/3  loss 2.5  ndcg@10 0.125") and lines[2] == "preprocess: [made] again"
    assert len(lines) < 8


PARTS = (
    PartStarted("sasrec · seed 0", ("preprocess", "align"), 1, 4, None),
    StageStarted("align"),
    StageEnded(REF, cached=False, seconds=1.0),
    PartEnded("sasrec · seed 0: NDCG@10 0.1234"),
    PartStarted("prorec · seed 0", ("align",), 2, 4, 90.0),
)


def test_parts_follow_each_other_on_one_screen() -> None:
    console, end = _screen(100), Console(file=io.StringIO(), width=100)
    with LiveDisplay([], console) as display:
        for event in PARTS:
            display.handle(event)
        end.print(display._shown())
    assert "NDCG@10 0.1234" in console.file.getvalue()  # type: ignore[attr-defined]
    shown = end.file.getvalue()  # type: ignore[attr-defined]
    assert shown.startswith("2 of 4, about 1 min 30 s left: prorec · seed 0")
    assert "align" in shown and "preprocess" not in shown and "done" not in shown


def test_parts_follow_each_other_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay() as display:
        for event in PARTS:
            display.handle(event)
    assert capsys.readouterr().err.splitlines() == [
        "1 of 4: sasrec · seed 0",
        "align: started",
        "align: done in 1.0 s",
        "sasrec · seed 0: NDCG@10 0.1234",
        "2 of 4, about 1 min 30 s left: prorec · seed 0",
    ]


def test_not_a_screen_means_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(make_display(["align"]), PlainDisplay)


def test_the_result_names_every_scorer() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(result_table({"test": {"fused": {"recall_at_10": 0.12345}, "popularity": {"ndcg_at_10": 0.5}}}))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "fused" in shown and "0.1235" in shown and "popularity" in shown and "Recall@10" in shown


def test_new_items_have_a_table_of_their_own() -> None:
    recall = {"recall_at_10": 0.125, "recall_at_10_standard_error": 0.01}
    found = {"items": 7, "interactions": 9, "bonus": 0.0, "share_of_catalogue": 0.05}
    found |= {"new": {"fused": recall}, "known": {"fused": recall}, "share_at_10": {"fused": 0.021}}
    console = Console(file=io.StringIO(), width=160)
    console.print(plain_table(new_item_line(found), new_item_rows(found)))
    shown = console.file.getvalue()
    assert "7 new items" in shown
    assert "0.1250 ± 0.0100" in shown
    assert "2.1%" in shown


BESIDE = (
    PartStarted("sasrec · seed 0", ("align",), 1, 2, None, beside="sasrec · seed 0"),
    PartStarted("prorec · seed 0", ("align",), 2, 2, None, beside="prorec · seed 0"),
    Beside("sasrec · seed 0", StageStarted("align")),
    Beside("prorec · seed 0", StageStarted("align")),
    Beside("prorec · seed 0", StageProgress("align", Progress(2, 5, "epoch", {"loss": 1.5}))),
    Beside("sasrec · seed 0", Notice("slow")),
    PartEnded("sasrec · seed 0: failed in align: no", "sasrec · seed 0", failed=True),
)


def test_what_runs_side_by_side_has_a_line_each_and_none_when_it_is_over() -> None:
    console, end = _screen(100), Console(file=io.StringIO(), width=100)
    with LiveDisplay([], console) as display:
        for event in BESIDE:
            display.handle(event)
        end.print(display._shown())
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "sasrec · seed 0: slow" in printed and "sasrec · seed 0: failed in align: no" in printed
    shown = end.file.getvalue()  # type: ignore[attr-defined]
    assert "prorec · seed 0  align" in shown and "epoch 2/5" in shown and "loss 1.5" in shown
    assert "sasrec" not in shown.partition("\n")[2]


def test_what_runs_side_by_side_is_named_in_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay() as display:
        for event in BESIDE:
            display.handle(event)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["1 of 2: sasrec · seed 0", "2 of 2: prorec · seed 0"]
    assert lines[3:4] == ["prorec · seed 0: align: started"] and lines[5:] == [
        "sasrec · seed 0: slow",
        "sasrec · seed 0: failed in align: no",
    ]
    assert lines[4].startswith("prorec · seed 0: align: epoch 2/5  loss 1.5")


def test_events_of_stages_cross_to_another_process() -> None:
    for event in (StageStarted("align"), BESIDE[4].event, StageEnded(REF, True, 1.5), Notice("a")):  # type: ignore[union-attr]
        assert from_json(json.loads(json.dumps(as_json(event)))) == event
