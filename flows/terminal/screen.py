"""What is printed, in one place: text is shown as it is, never as markup and never as an order to the terminal.

Knows terminals, rich and what is hidden in a text; knows nothing of what is shown. Titles, ids, paths and messages come
from data: brackets in them are brackets, and a control character is an escape that can be read.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from prorec_core.visible import visible

_TABLE_WIDTH = 240


def say(text: str, *, error: bool = False, lines: bool = False) -> None:
    """Print a line to standard output or standard error.

    Args:
        text: the line.
        error: standard error.
        lines: it is several lines; otherwise the end of a line within it is shown as an escape.
    """
    print(visible(text, lines=lines), file=sys.stderr if error else sys.stdout, flush=True)


def plain(text: str, style: str = "") -> Text:
    """A line for a console, in a style, with nothing in it that steers."""
    return Text(visible(text), style)


class PlainConsole(Console):
    """A console to which every text is plain, in tables and titles too; line ends in it stay."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of what is given as `str`: the one way in which rich does so."""
        options |= {"markup": False, "emoji": False, "highlight": False, "highlighter": None}
        return super().render_str(visible(text, lines=True), **options)


def console(*, error: bool = False, wide: bool = False, soft_wrap: bool = False) -> PlainConsole:
    """Where tables go.

    Args:
        error: standard error.
        wide: take as many columns as a table needs, up to 240, where there is no screen that it must fit.
        soft_wrap: leave the breaking of long lines to the terminal.
    """
    found = PlainConsole(stderr=error, soft_wrap=soft_wrap)
    if wide and not found.is_terminal:
        return PlainConsole(stderr=error, soft_wrap=soft_wrap, width=_TABLE_WIDTH)
    return found
