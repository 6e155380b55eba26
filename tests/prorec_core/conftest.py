"""Pages of reports without the time that their figures take."""

from __future__ import annotations

from html import escape

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what pages say: figures are put together, with all that is written in them, and not drawn."""

    def as_svg(figure: Figure, name: str, words: str) -> str:
        texts = "".join(f"<text>{escape(text.get_text())}</text>" for text in figure.findobj(Text))
        return f'<svg id="{name}" role="img" aria-label="{escape(words)}">{texts}</svg>'

    for page in ("prorec_core.reports.evaluation", "prorec_core.reports.comparison.page"):
        monkeypatch.setattr(f"{page}.as_svg", as_svg)
        monkeypatch.setattr(f"{page}.as_png", lambda _: b"")
