"""The plots of a comparison of variants. Knows what `compare_variants` found and how to show it.

Every plot has a row a variant, so that names have room however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from prorec_core.evaluation.marks import marked
from prorec_core.metrics.measuring import compared
from prorec_core.metrics.table import label
from prorec_core.reports.drawing import (
    BEHAVIOUR_COLOUR,
    INK,
    MUTED,
    RULE,
    TEXT_COLOUR,
    DifferenceFormatter,
    draw_interval,
    panels,
    style,
)
from prorec_core.reports.plots import domination_bars

Found = Mapping[str, Any]
BETTER, WORSE = "#2a9d74", "#d1495b"
_ROW, _EDGE = 0.27, 0.62
"""Inches a row, and inches above and below all rows."""


def forest(found: Found, names: Sequence[str]) -> Figure:
    """Differences of some variants to the reference with 95% intervals, a panel a metric."""
    with style():
        figure, both = _rows(len(names), len(compared()))
        for axes, metric in zip(both, reversed(compared()), strict=True):
            axes.axvline(0, color=MUTED, linewidth=1)
            for place, name in enumerate(names):
                against = found["variants"][name]["against"][metric]
                shade = BETTER if against["low"] > 0 else WORSE
                draw_interval(axes, place, (against["low"], against["difference"], against["high"]), shade)
            axes.set_title(f"{label(metric)}, difference to {found['reference']}")
            axes.xaxis.set_major_formatter(DifferenceFormatter())
        _name_rows(both, names, found)
    return figure


def values(found: Found) -> Figure:
    """Each variant's figures: a ring a seed, a bar at their mean; the dashed line is the reference's mean."""
    names = list(found["variants"])
    with style():
        figure, both = _rows(len(names), len(compared()))
        for axes, metric in zip(both, reversed(compared()), strict=True):
            if found["reference"] in names:
                mean = found["variants"][found["reference"]]["test"][metric]["mean"]
                axes.axvline(mean, color=RULE, linewidth=1.2, linestyle=(0, (4, 2)))
            for place, name in enumerate(names):
                shade = INK if name == found["reference"] else TEXT_COLOUR
                by_seed = found["variants"][name]["by_seed"][metric]
                axes.plot(by_seed, [place] * len(by_seed), linestyle="none", marker="o", markersize=5, color="none",
                          markeredgecolor=shade, markeredgewidth=1.1, clip_on=False)  # fmt: skip
                axes.plot([float(np.mean(by_seed))] * 2, [place - 0.3, place + 0.3], color=shade, linewidth=2.2,
                          clip_on=False)  # fmt: skip
            axes.set_title(f"{label(metric)} on test")
            axes.set_xlim(left=0)
        _name_rows(both, names, found)
    return figure


def groups(found: Found, kind: str) -> Figure:
    """Recall@10 with standard errors for groups of users; coloured where the reference is told apart."""
    names, parts = list(found["variants"]), found["slices"][kind]
    with style():
        figure, columns = _rows(len(names), len(parts))
        for axes, part in zip(columns, parts, strict=True):
            for place, name in enumerate(names):
                shade = INK if name == found["reference"] else _told_apart(part["against"].get(name))
                axes.errorbar(part["recall"][name], place, xerr=part["standard_error"][name], color=shade, marker="o",
                              markersize=5, elinewidth=1.4, clip_on=False)  # fmt: skip
            what = f"{part['group']} items" if kind == "history_length" else part["group"]
            axes.set_title(f"{what}\n{part['users']:,} users")
            axes.set_xlim(left=0)
        _name_rows(columns, names, found)
    return figure


def _told_apart(against: Mapping[str, float] | None) -> str:
    """The colour of what is better or worse than the reference; muted where nobody can tell."""
    if against is None or against["low"] <= 0 <= against["high"]:
        return MUTED
    return BETTER if against["low"] > 0 else WORSE


def new_items(found: Found) -> Figure:
    """Recall@10 of new items with standard errors, and of the others beside them, by what stands for a variant."""
    rows = {name: about["new_items"] for name, about in found["variants"].items() if about["new_items"]}
    with style():
        figure, both = _rows(len(rows), 2)
        for place, (name, scorers) in enumerate(rows.items()):
            measured = scorers[found["variants"][name]["scorer"]]
            shade = INK if name == found["reference"] else BEHAVIOUR_COLOUR
            for axes, group in zip(both, ("new", "known"), strict=True):
                error = measured["standard_error"] if group == "new" else None
                axes.errorbar(measured[group]["recall_at_10"]["mean"], place, xerr=error, color=shade, marker="o",
                              markersize=5, elinewidth=1.4, clip_on=False)  # fmt: skip
        for axes, who in zip(both, ("new items", "other items"), strict=True):
            axes.set_title(f"Recall@10, {who}")
            axes.set_xlim(left=0)
        _name_rows(both, list(rows), found)
    return figure


def domination(found: Found) -> Figure:
    """What the embedding behind each variant's codes shares with the text and with behaviour."""
    rows = {name: about["domination"] for name, about in found["variants"].items() if about["domination"]}
    return domination_bars(rows, {name: name for name in rows})


def cost(found: Found) -> Figure:
    """Seconds of a variant: all its stages, and of these what no variant above it had made already."""
    names = [name for name, about in found["variants"].items() if about["cost"]]
    with style():
        figure, (seconds, parameters) = _rows(len(names), 2)
        for place, name in enumerate(names):
            about = found["variants"][name]["cost"]
            seconds.barh(place, about["seconds"], height=0.6, color=RULE)
            seconds.barh(place, about["own_seconds"], height=0.6, color=TEXT_COLOUR)
            parameters.barh(place, about["parameters"], height=0.6, color=RULE)
        seconds.set_title("seconds, its own share in blue")
        parameters.set_title("parameters")
        for axes in (seconds, parameters):
            axes.xaxis.set_major_formatter(FuncFormatter(_short))
        _name_rows([seconds, parameters], names, found)
    return figure


def _short(value: float, _: object = None) -> str:
    """A large number in few letters: 1,500 is 1.5k."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _rows(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    return panels(columns, height=_EDGE + _ROW * rows, sharey="row")


def _name_rows(columns: Sequence[Axes], names: Sequence[str], found: Found) -> None:
    labels = [marked(name, found["variants"][name]) for name in names]
    for axes in columns:
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4 if len(columns) <= 2 else 3))
    columns[0].tick_params(axis="y", labelcolor=INK)
    for tick in columns[0].get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() == found["reference"] else "normal")
