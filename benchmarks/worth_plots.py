"""The figures of `benchmarks.worth` as plots. Knows rows as its JSON file has them; measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prorec_core.reports.drawing import (
    BEHAVIOUR_COLOUR,
    INK,
    MUTED,
    TEXT_COLOUR,
    DifferenceFormatter,
    as_png,
    panels,
    style,
)

Rows = Sequence[Mapping[str, Any]]
_METRIC = "ndcg_at_10"
_GROUPS = {"all": "all targets", "rare": "seen five times at most", "new": "new items"}
_SHADES = (TEXT_COLOUR, BEHAVIOUR_COLOUR, INK)


def plot(part: str, rows: Rows) -> bytes:
    """Differences with 95% intervals; PNG.

    Args:
        part: alignment (against α, a panel a situation) or distillation (against what quantization loses).
        rows: as `worth.rows_of` gives them.
    """
    return as_png(_alignment(rows) if part == "alignment" else _distillation(rows))


def _alignment(rows: Rows) -> Figure:
    with_interval = [row for row in rows if f"{_METRIC}_difference" in row]
    places = list(dict.fromkeys((row["situation"], row["group"]) for row in with_interval))
    with style():
        columns = min(3, len(places))
        figure, all_axes = panels(columns, -(-len(places) // columns), width=10.0, height=2.6)
        for axes in all_axes[len(places) :]:
            axes.axis("off")
        for axes, (situation, group) in zip(all_axes, places, strict=False):
            shown = [row for row in with_interval if (row["situation"], row["group"]) == (situation, group)]
            _zero(axes)
            for row in shown:
                _interval(axes, row["weight"], row, TEXT_COLOUR)
            axes.set_xscale("log")
            axes.set_xticks([row["weight"] for row in shown], [f"{row['weight']:g}" for row in shown])
            axes.minorticks_off()
            axes.set_title(f"{situation}\n{_GROUPS[group]} ({shown[0]['targets']:,})")
            axes.set_xlabel("α")
        all_axes[0].set_ylabel("NDCG@10 less that without")
    return figure


def _distillation(rows: Rows) -> Figure:
    with_interval = [row for row in rows if f"{_METRIC}_difference" in row]
    with style():
        figure, (difference, level) = panels(2, height=3.4)
        _zero(difference)
        for shade, levels in zip(_SHADES, sorted({row["levels"] for row in with_interval}), strict=False):
            shown = sorted(
                (row for row in with_interval if row["levels"] == levels), key=lambda row: row["relative_error"]
            )
            for row in shown:
                _interval(difference, row["relative_error"], row, shade)
            for distilled, filled in ((True, shade), (False, "none")):
                own = [row for row in rows if row["levels"] == levels and bool(row["weight"]) == distilled]
                own.sort(key=lambda row: row["relative_error"])
                level.plot(
                    [row["relative_error"] for row in own],
                    [row[_METRIC] for row in own],
                    color=shade,
                    marker="o",
                    markersize=5,
                    markerfacecolor=filled,
                    linestyle="-" if distilled else (0, (4, 2)),
                    label=f"{levels} levels{'' if distilled else ', without'}",
                )
        difference.set_title("What distillation adds, NDCG@10")
        level.set_title("Codes alone with and without it, NDCG@10")
        level.set_ylim(0, 1.08 * max(row[_METRIC] for row in rows))
        level.legend()
        for axes in (difference, level):
            axes.set_xlabel("what quantization loses: error relative to the embedding's variance")
    return figure


def _zero(axes: Axes) -> None:
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.yaxis.set_major_formatter(DifferenceFormatter())


def _interval(axes: Axes, x: float, row: Mapping[str, Any], shade: str) -> None:
    """A point with its interval, filled where that leaves out 0."""
    low, middle, high = row[f"{_METRIC}_difference"]
    sure = low > 0 or high < 0
    axes.errorbar(
        x,
        middle,
        yerr=[[middle - low], [high - middle]],
        color=shade if sure else MUTED,
        marker="o",
        markersize=6,
        markerfacecolor=(shade if sure else "white"),
        elinewidth=1.8,
    )
