"""The plots and the table of a tuning hold every trial, whatever kind of values were tried."""

from __future__ import annotations

from typing import Any

import numpy as np

from prorec_core.reports.drawing import as_png
from prorec_core.reports.tuning import history, ranked, slices, table_markdown


def _trial(number: int, value: float | None, state: str = "complete", **values: Any) -> dict[str, Any]:
    return {"trial": number, "state": state, "value": value, "epochs": 3, "values": values, "seconds": 1.0}


TRIALS = [
    _trial(1, 0.2, rate=0.001, kind="a", warm=True, width=32),
    _trial(2, None, "failed", rate=0.1, kind="b", warm=True, width=64),
    _trial(3, 0.3, rate=0.01, kind="b", warm=False, width=64),
    _trial(4, 0.35, "pruned", rate=0.02, kind="a", warm=False, width=32),
    _trial(5, 0.25, rate=0.03, kind="a", warm=True, width=64),
]


def test_history_shows_every_trial_and_the_best_so_far() -> None:
    (axes,) = history(TRIALS).axes
    lines = {str(line.get_label()): line for line in axes.lines}
    np.testing.assert_allclose(lines["best so far"].get_xydata(), [[1, 0.2], [3, 0.3], [5, 0.3], [5, 0.3]])
    np.testing.assert_allclose(lines["complete"].get_xydata(), [[1, 0.2], [3, 0.3], [5, 0.25]])
    np.testing.assert_allclose(lines["pruned"].get_xydata(), [[4, 0.35]])
    assert list(lines["failed"].get_xdata()) == [2]
    assert [text.get_text() for text in axes.texts] == ["0.3000"], "a pruned trial is never the best"


def test_slices_show_numbers_and_names_the_important_first() -> None:
    figure = slices(TRIALS, ["rate", "kind", "warm", "width"], {"kind": 0.75, "rate": 0.25})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == [
        "kind, importance 0.75", "rate, importance 0.25", "warm", "width",
    ]  # fmt: skip
    kind, rate, warm, width = shown
    assert [text.get_text() for text in kind.get_xticklabels()] == ["a", "b"]
    assert [text.get_text() for text in warm.get_xticklabels()] == ["False", "True"]
    assert [text.get_text() for text in width.get_xticklabels()] == ["32", "64"]
    assert (rate.get_xscale(), kind.get_xscale()) == ("log", "linear")
    for axes, at in ((kind, [0, 1, 0]), (rate, [0.001, 0.01, 0.03]), (width, [0, 1, 1])):
        complete = next(line for line in axes.lines if line.get_label() == "complete")
        np.testing.assert_allclose(complete.get_xydata(), list(zip(at, [0.2, 0.3, 0.25], strict=True)))
    assert as_png(figure) == as_png(slices(TRIALS, ["rate", "kind", "warm", "width"], {"kind": 0.75, "rate": 0.25}))


def test_one_trial_alone_draws() -> None:
    assert as_png(history(TRIALS[:1])).startswith(b"\x89PNG")
    assert as_png(slices(TRIALS[:1], ["rate", "kind"], {})).startswith(b"\x89PNG")


def test_the_table_puts_complete_trials_first() -> None:
    assert [each["trial"] for each in ranked(TRIALS)] == [3, 5, 1, 4, 2]
    lines = table_markdown(TRIALS, shown=4).splitlines()
    assert lines[0] == "| trial | NDCG@10 | epochs | rate | kind | warm | width |" and len(lines) == 6
    assert lines[2] == "| 3 | 0.3000 | 3 | 0.01 | b | False | 64 |" and "0.3500 (pruned)" in lines[5]
