"""Text from elsewhere as it can be shown: what steers a terminal or hides in a line becomes a visible escape.

Knows characters; knows nothing of where they are shown.
"""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, of invisible ones that reorder or join, halves of pairs, line ends."""
_MEANS_SOMETHING = re.compile(r"[\\`*\[\]<>|~!&]")
"""Characters with which Markdown begins something else than text."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str, *, lines: bool = False) -> str:
    r"""The text with every control character, line end, joiner and change of direction as an escape.

    Args:
        text: anything.
        lines: leave line feeds and tabs: it is known to be several lines.

    >>> visible("a\x1b[31m\u202e\nb")
    'a\\x1b[31m\\u202e\\nb'
    """
    if text.isprintable():
        return text
    left = "\n\t" if lines else ""
    return "".join(
        each if each in left or unicodedata.category(each) not in _HIDDEN else _escape(each) for each in text
    )


def shortened(text: str, most: int) -> str:
    """The text, its end left out where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def in_markdown(text: str) -> str:
    r"""The text as Markdown that shows it, in a table too, and neither formats, links nor loads anything.

    >>> in_markdown("![a|b](http://c) *d* items_file")
    '\\!\\[a\\|b\\](http://c) \\*d\\* items_file'
    """
    return _MEANS_SOMETHING.sub(r"\\\g<0>", visible(text))


def code_in_markdown(text: str) -> str:
    """The text as code within a line of Markdown, whatever stands in it."""
    shown = visible(text)
    fence = _fence(shown, 1)
    blank = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{blank}{shown}{blank}{fence}"


def block_in_markdown(text: str, language: str) -> str:
    """Lines of code as a block of Markdown, whatever stands in them."""
    fence = _fence(text, 3)
    shown = visible(text, lines=True).rstrip("\n")
    return f"{fence}{language}\n{shown}\n{fence}"


def _fence(text: str, least: int) -> str:
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def _escape(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )
