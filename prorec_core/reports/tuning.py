"""The plots of a tuning, and its table in Markdown. Knows trials and how to show them; knows nothing of how they ran.

A trial is a mapping with `trial` (its number), `state` (complete, pruned or failed), `value` (validation NDCG@10, or
None), `epochs`, `values` (by field) and `seconds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from prorec_core.reports.drawing import BEHAVIOUR_COLOUR, INK, MUTED, PAPER, TEXT_COLOUR, panels, style
from prorec_core.visible import in_markdown

Trial = Mapping[str, Any]
_PANELS_A_ROW = 3
_LOGARITHMIC_FROM = 5.0
"""How many times the lowest of several positive values the highest is where their axis is logarithmic."""

_NAMED = 4
"""So many different numbers, each tried several times, stand evenly spaced, as names do."""


def history(trials: Sequence[Trial]) -> Figure:
    """Validation NDCG@10 trial by trial, and the best so far; pruned ones are hollow, failed ones crosses below."""
    with style():
        figure, (axes,) = panels(1, width=7.0, height=3.0)
        complete = [each for each in trials if each["state"] == "complete"]
        if complete:
            numbers = [each["trial"] for each in complete]
            best = np.maximum.accumulate([each["value"] for each in complete])
            last = max(each["trial"] for each in trials)
            axes.step([*numbers, last], [*best, best[-1]], where="post", color=BEHAVIOUR_COLOUR, label="best so far")
        _dots(axes, trials, lambda each: each["trial"])
        failed = [each["trial"] for each in trials if each["value"] is None]
        if failed:
            axes.plot(failed, [0.03] * len(failed), transform=axes.get_xaxis_transform(), linestyle="none", marker="x",
                      color=MUTED, label="failed")  # fmt: skip
        _ring_best(axes, complete, lambda each: each["trial"], told=True)
        axes.set(title="Validation NDCG@10 of each trial", xlabel="trial")
        axes.margins(y=0.2)
        axes.set_xlim(0.5, max(each["trial"] for each in trials) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        figure.legend(loc="outside upper right", ncols=4)
    return figure


def slices(trials: Sequence[Trial], fields: Sequence[str], importances: Mapping[str, float]) -> Figure:
    """Validation NDCG@10 over each field that was tuned, the most important first.

    Args:
        trials: those that ended.
        fields: what was tuned.
        importances: by field its share in what moves the value, where that is known.
    """
    ordered = sorted(fields, key=lambda field: -importances.get(field, 0.0))
    columns = min(len(ordered), _PANELS_A_ROW)
    rows = math.ceil(len(ordered) / columns)
    complete = [each for each in trials if each["state"] == "complete"]
    with style():
        figure, places = panels(columns, rows, height=2.5, sharey="row")
        for axes in places[len(ordered) :]:
            axes.set_visible(False)
        for place, (axes, field) in enumerate(zip(places, ordered, strict=False)):
            at = _scale(axes, [each["values"][field] for each in trials if each["value"] is not None])
            _dots(axes, trials, lambda each, field=field, at=at: at(each["values"][field]))
            _ring_best(axes, complete, lambda each, field=field, at=at: at(each["values"][field]))
            share = f", importance {importances[field]:.2f}" if field in importances else ""
            axes.set_title(f"{field}{share}", fontsize=8.5)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.margins(y=0.16)
            if place % columns == 0:
                axes.set_ylabel("validation NDCG@10")
        handles, labels = places[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
    return figure


def _dots(axes: Axes, trials: Iterable[Trial], at: Any) -> None:
    """A dot a trial, hollow where it ended early."""
    for state, fill in (("complete", TEXT_COLOUR), ("pruned", PAPER)):
        known = [each for each in trials if each["state"] == state and each["value"] is not None]
        if known:
            axes.plot([at(each) for each in known], [each["value"] for each in known], linestyle="none", marker="o",
                      markersize=5, color=fill, markeredgecolor=TEXT_COLOUR, label=state)  # fmt: skip


def _ring_best(axes: Axes, complete: Sequence[Trial], at: Any, *, told: bool = False) -> None:
    if not complete:
        return
    best = max(complete, key=lambda each: each["value"])
    axes.plot(at(best), best["value"], marker="o", markersize=10, color="none", markeredgecolor=INK)
    if told:
        axes.annotate(f"{best['value']:.4f}", (at(best), best["value"]), xytext=(0, 9), textcoords="offset points",
                      ha="center", fontsize=8)  # fmt: skip


def _scale(axes: Axes, found: Sequence[Any]) -> Any:
    """Give an axis ticks and a scale that fit some values; returns where on it a value is."""
    numeric = all(isinstance(each, int | float) and not isinstance(each, bool) for each in found)
    distinct = sorted(set(found)) if numeric else sorted({str(each) for each in found})
    if not numeric or len(distinct) <= min(_NAMED, len(found) - 1):
        axes.set_xticks(range(len(distinct)), [_cell(each).replace("_", "\n") for each in distinct])
        axes.set_xlim(-0.5, len(distinct) - 0.5)
        return lambda value: distinct.index(value if numeric else str(value))
    if found and min(found) > 0 and max(found) >= _LOGARITHMIC_FROM * min(found):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=12))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    return lambda value: value


def table_markdown(trials: Sequence[Trial], shown: int = 20) -> str:
    """The best trials as a Markdown table, what failed after them."""
    fields = list(trials[0]["values"]) if trials else []
    lines = [_line(["trial", "NDCG@10", "epochs", *fields]), _line(["---:"] * (3 + len(fields)))]
    for each in ranked(trials)[:shown]:
        value = "failed" if each["value"] is None else f"{each['value']:.4f}"
        told = value if each["state"] != "pruned" else f"{value} (pruned)"
        cells = [in_markdown(_cell(each["values"].get(field))) for field in fields]
        lines.append(_line([str(each["trial"]), told, str(each["epochs"]), *cells]))
    return "\n".join(lines)


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """The trials by value, the best first: complete ones, then pruned ones, then those that failed."""
    states = ("complete", "pruned", "failed")
    return sorted(trials, key=lambda each: (states.index(each["state"]), -(each["value"] or 0.0), each["trial"]))


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
