"""Equations as drawings, made while the site is built: they look alike everywhere, and nothing is loaded for them.

Knows Sphinx's nodes and Matplotlib's mathtext, which reads the part of TeX that it needs.
"""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)
_UNITS = 100.0
"""Of the drawing, to one em of the page."""
_LARGER = 1.15
"""Than the words around them: letters of this font are small."""
_COMMANDS = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C", Outline.CLOSEPOLY: "Z"}


def _inline(writer: Any, node: nodes.Element) -> None:
    writer.body.append(_drawn(node, node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.Element) -> None:
    large = node.astext().replace(r"\frac", r"\dfrac")
    writer.body.append(f'<div class="equation">{_drawn(node, large)}</div>')
    raise nodes.SkipNode


def _drawn(node: nodes.Element, tex: str) -> str:
    try:
        return drawing(tex)
    except ValueError as error:
        _log.warning("an equation cannot be read: %s (%s)", tex, error, location=node)
        return ""


@cache
def drawing(tex: str) -> str:
    """An SVG element that stands on the line of the words beside it, in their colour.

    Raises:
        ValueError: mathtext does not know what is written there.
    """
    text, font = f"${' '.join(tex.split())}$", FontProperties(size=_UNITS, math_fontfamily="stix")
    size = MathTextParser("path").parse(text, 72, font)
    outline = TextPath((0, 0), text, size=_UNITS, prop=font)
    width, height, depth = size.width, size.height, size.depth
    style = f"width:{width / _UNITS * _LARGER:.3f}em;height:{height / _UNITS * _LARGER:.3f}em"
    return (
        f'<svg class="math" viewBox="0 {depth - height:.1f} {width:.1f} {height:.1f}" role="img" '
        f'aria-label="{escape(tex, quote=True)}" style="{style};vertical-align:{-depth / _UNITS * _LARGER:.3f}em">'
        f'<path fill="currentColor" d="{_path(outline)}"/></svg>'
    )


def _path(outline: Outline) -> str:
    """The outline as SVG writes it; its second axis runs down."""
    parts = []
    for points, code in outline.iter_segments(simplify=False):
        command = _COMMANDS[code]
        ends = "" if command == "Z" else " ".join(f"{x:.1f} {-y:.1f}" for x, y in points.reshape(-1, 2))
        parts.append(command + ends)
    return "".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    """Have Sphinx write equations so."""
    app.add_html_math_renderer("drawn", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
