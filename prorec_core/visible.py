"""Text from elsewhere as it can be shown: what steers a terminal or hides in a line becomes a visible escape.

Knows characters; knows nothing of where they are shown.
"""

from __future__ import annotations

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, of invisible ones that reorder or join, halves of pairs, line ends."""
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


def _escape(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )
