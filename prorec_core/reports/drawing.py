"""How every plot looks, and a figure as SVG for a page or as PNG for a file. Knows no data.

Equal figures give equal bytes: no dates, fixed ids, the fonts that Matplotlib brings along.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from prorec_core.artifacts import write_bytes

INK, MUTED, RULE, GRID, PAPER = "#1b1f24", "#69707a", "#c4cad2", "#e6e9ee", "#fefefd"
TEXT_COLOUR, BEHAVIOUR_COLOUR = "#2f86c5", "#d9642b"

_PAGE_COLOUR = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prorec",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "path.simplify": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Within it figures look as they should; leaves Matplotlib's settings as they were."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def panels(
    columns: int,
    rows: int = 1,
    *,
    width: float = 9.0,
    height: float = 2.9,
    sharex: Literal["none", "col"] = "none",
    sharey: Literal["none", "row"] = "none",
) -> tuple[Figure, list[Axes]]:
    """A figure `width` inches wide, each row `height` inches high, and its axes in reading order."""
    figure = Figure(figsize=(width, height * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, list(axes.ravel())


class DifferenceFormatter(ScalarFormatter):
    """Ticks of differences: a sign before each but 0, and as many decimals as the steps between them need."""

    def __init__(self) -> None:
        super().__init__(useOffset=False)
        self.set_scientific(False)

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{'+' if x > 0 else ''}{super().__call__(x, pos)}" if x else "0"


def as_png(figure: Figure, dots_per_inch: int = 160) -> bytes:
    """The figure on white, as PNG."""
    sink = io.BytesIO()
    with style():
        figure.savefig(sink, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": None})
    return sink.getvalue()


class Picture:
    """A figure that a notebook shows, or that `save` keeps.

    Attributes:
        figure: Matplotlib's.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def __repr__(self) -> str:
        return "Picture"

    def _repr_png_(self) -> bytes:
        return as_png(self.figure, dots_per_inch=110)

    def save(self, path: str | Path) -> None:
        """Write it as PNG."""
        write_bytes(Path(path), as_png(self.figure))


def as_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element to stand in a page: colours follow the page's, text is text.

    Args:
        figure: drawn within `style`.
        name: sets its ids apart from those of other figures in the page.
        description: what a screen reader says in its place.
    """
    sink = io.StringIO()
    with style():
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = sink.getvalue()
    drawn = drawn[drawn.index("<svg") :].strip()
    drawn = re.sub(r"\s*<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", drawn)
    for fixed, of_page in _PAGE_COLOUR.items():
        drawn = drawn.replace(fixed, of_page)
    opening = re.match(r"<svg[^>]*>", drawn)
    box = re.search(r'viewBox="[^"]*"', drawn)
    if opening is None or box is None:
        raise ValueError("Matplotlib drew something that is not an SVG element")
    start = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{escape(description)}">'
    return start + drawn[opening.end() :]


def draw_interval(axes: Axes, place: float, ends: tuple[float, float, float], shade: str) -> None:
    """A difference with its interval as a bar and a dot; coloured and filled only where the interval leaves out 0.

    Args:
        axes: where to draw.
        place: of the row.
        ends: lower end, difference, upper end.
        shade: of what leaves out 0.
    """
    low, middle, high = ends
    sure = low > 0 or high < 0
    shade = shade if sure else MUTED
    axes.plot([low, high], [place, place], color=shade, linewidth=2.4)
    axes.plot(middle, place, marker="o", markersize=6, color=shade if sure else PAPER, markeredgecolor=shade)
