"""Lines that are Python's way to write a dictionary, and not JSON, as JSON. Nothing of them is evaluated.

Knows how Python writes texts, numbers, lists, tuples, dictionaries, True, False and None. Knows nothing of files.

Piece by piece it is rewritten as JSON, which knows no names, calls or operators, and has bounds for what is nested. A
single text with an escape that JSON has nothing like is the one thing that is handed to Python, as a literal.
"""

from __future__ import annotations

import ast
import re
import warnings
from re import Match

import orjson

_PIECE = re.compile(
    rb"""(?P<text>[uU]?(?:'[^'\\]*+(?:\\.[^'\\]*+)*+'|"[^"\\]*+(?:\\.[^"\\]*+)*+"))"""
    rb"""|(?P<word>(?<![\w.])[A-Za-z_]\w*)|(?P<end>,\s*[)\]}])|(?P<round>[()])|(?P<quote>['"])"""
)
_ESCAPE = re.compile(
    rb"""\\(?:(?P<same>["\\nrtbf]|u[0-9a-fA-F]{4})|(?P<byte>x[0-9a-fA-F]{2})|(?P<single>')|(?P<odd>.))|\""""
)
_WORDS = {b"True": b"true", b"False": b"false", b"None": b"null"}
_ENDS = {b"(": b"[", b")": b"]"}
_SHOWN = 40


class _OddEscapeError(Exception):
    """An escape that JSON has nothing like."""


class NoLiteralError(ValueError):
    """Why a line is no dictionary of plain values."""


def as_json(line: bytes) -> bytes:
    """The line as JSON; whether it is an object, and all of it plain values, is seen when that is read.

    Takes time in proportion to the line's length, whatever is nested in it.

    >>> as_json(b"{'a': (1, None), u'b': 'it\\\\'s'}")
    b'{"a": [1, null], "b": "it\\'s"}'

    Raises:
        NoLiteralError: a name stands there, as of a function, or a text that has no end or means nothing.
    """
    return _PIECE.sub(_written, line)


def _written(match: Match[bytes]) -> bytes:
    piece = match[0]
    if match["text"]:
        return _text(piece.lstrip(b"uU"))
    if match["word"]:
        if piece not in _WORDS:
            raise NoLiteralError(f"it holds the name '{piece[:_SHOWN].decode()}', which is no plain value")
        return _WORDS[piece]
    if match["quote"]:
        raise NoLiteralError("a quote in it is never closed")
    return _ENDS.get(piece[-1:], piece[-1:])


def _text(token: bytes) -> bytes:
    inner = token[1:-1]
    # Python writes control characters as escapes; JSON refuses those that stand there bare.
    if b"\\" not in inner and b'"' not in inner:
        return b'"' + inner + b'"'
    try:
        return b'"' + _ESCAPE.sub(_escaped, inner) + b'"'
    except _OddEscapeError:
        return _odd_text(token)


def _escaped(match: Match[bytes]) -> bytes:
    """An escape of Python's as JSON has it; a double quote, which needs one there."""
    if match["same"]:
        return match[0]
    if match["byte"]:
        return b"\\u00" + match["byte"][1:]
    if match["single"]:
        return b"'"
    if match["odd"]:
        raise _OddEscapeError
    return b'\\"'


def _odd_text(token: bytes) -> bytes:
    """A text with an escape that JSON has nothing like."""
    try:
        with warnings.catch_warnings():
            # An escape that Python does not know stands for itself, with a warning.
            warnings.simplefilter("ignore")
            found = ast.literal_eval(token.decode())
        # Half a pair each, as older Pythons wrote what lies beyond 16 bits.
        return orjson.dumps(found.encode("utf-16-le", "surrogatepass").decode("utf-16-le"))
    except (ValueError, SyntaxError, MemoryError) as error:
        raise NoLiteralError(f"a text in it cannot be read: {token[:_SHOWN].decode(errors='replace')}") from error
