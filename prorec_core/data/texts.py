"""Raw columns turned into readable text. Knows lists, texts of lists and HTML entities; knows nothing of files."""

from __future__ import annotations

import ast
import html
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from zoneinfo import available_timezones

import polars as pl

from prorec_core.data.columns import EMPTY, LETTERS, PER_SECOND, PLAIN, Field, without_missing

_LONGEST_LIST = 20_000
"""Characters of a text that is looked at as a list."""
_PASSES = 16
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_897
"""Days from 1970 to the first one of the year 1, and to that of the year 10,000."""
_AMPERSANDS = re.compile(r"&(?:(?:amp|AMP);?|#0*38(?:;|(?![0-9]))|#[xX]0*26(?:;|(?![0-9a-fA-F])))+")
"""An ampersand encoded once or many times over."""
_UNCLEAN = r"[^ !-%'-~]|  |^ | $"
"""What `clean` may make something else of: an ampersand, blanks that are not single ones, and what is not ASCII."""
_ENDLESS_NUMBER = re.compile(r"&#[0-9]{1000,};?")

_STRING = r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\""""
_OTHER = r"None|null|nan|-?[0-9]+(?:\.[0-9]+)?"
_LIST = re.compile(rf"(?:[\[\](){{}},\s]|{_STRING}|{_OTHER})*", re.DOTALL)
_TOKEN = re.compile(rf"[\[\](){{}},]|\s+|{_STRING}|{_OTHER}", re.DOTALL)
_NOTHING = ("None", "null", "nan")
_CLOSES = {"[": "]", "(": ")", "{": "}"}


def as_text(column: pl.Series, place: str, missing: Sequence[str] = EMPTY) -> pl.Series:
    """Readable text: lists, and texts that are lists, joined by commas; HTML entities decoded; whitespace made single.

    "" where there is none: null, NaN, or one of `missing`. A whole number of a column of floats has no fraction.

    Raises:
        UserError: a type that is no text (structures, binary).
    """
    field, column = Field(column.name, place), column.alias(PLAIN)
    frame = column.to_frame().select(_joined(pl.col(PLAIN), column.dtype, field, missing))
    joined = without_missing(frame.to_series(), missing)
    texts = _without_brackets(joined).fill_null("")
    # Most texts are clean: to see that costs less than to clean them.
    places = texts.str.contains(_UNCLEAN).arg_true()
    cleaned = pl.Series([clean(text) for text in texts.gather(places)], dtype=pl.String)
    return texts.scatter(places, cleaned) if places.len() else texts


def clean(text: str | None) -> str:
    """Decode HTML entities, also those encoded several times, and make runs of whitespace one space.

    Takes time in proportion to the text's length, whatever is nested in it.
    """
    text = text or ""
    for _ in range(_PASSES):
        if "&" not in text:
            break
        decoded = html.unescape(_ENDLESS_NUMBER.sub("\ufffd", _AMPERSANDS.sub("&", text)))
        if decoded == text:
            break
        text = decoded
    return " ".join(text.split())


def words_of_list(text: str) -> list[str] | None:
    """The texts in a list that stands there as text, nested or not; None where it is none.

    Lists of JSON, of Python and of NumPy are known (also tuples and sets). Nothing is evaluated.

    >>> words_of_list("[['Beauty', 'Skin & Care']]"), words_of_list('["A", null]'), words_of_list("[]")
    (['Beauty', 'Skin & Care'], ['A'], [])
    >>> words_of_list("[REC]"), words_of_list("[1984]")
    (None, None)
    """
    text = text.strip()
    if len(text) > _LONGEST_LIST or _CLOSES.get(text[:1]) != text[-1:]:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _words_of_python(text)
    if not isinstance(found, list):
        return None
    leaves = [leaf for leaf in _leaves(found) if leaf is not None]
    if any(isinstance(leaf, bool | dict) for leaf in leaves):
        return None
    return _words([str(leaf) for leaf in leaves], any(isinstance(leaf, str) for leaf in leaves) or not leaves)


def _words_of_python(text: str) -> list[str] | None:
    """The same of a list in Python's manner: quotes of either kind, commas that may be blanks, as NumPy writes them."""
    if not _LIST.fullmatch(text):
        return None
    open_: list[str] = []
    found: list[str] = []
    quoted = after_value = False
    for place, match in enumerate(_TOKEN.finditer(text)):
        token = match[0]
        if place and not open_:
            return None
        if token in _CLOSES:
            if after_value:
                return None
            open_.append(token)
        elif token in _CLOSES.values():
            if _CLOSES[open_.pop()] != token:
                return None
            after_value = True
        elif token == "," or token.isspace():
            after_value = False
        elif after_value:
            return None
        else:
            after_value = True
            if token[0] in "'\"":
                quoted = True
                found.append(_unquoted(token))
            elif token not in _NOTHING:
                found.append(token)
    return None if open_ else _words(found, quoted or not text.strip("[]() \t"))


def _words(found: list[str], is_list: bool) -> list[str] | None:
    """What was found, unless nothing among it was in quotes or it holds half a surrogate pair, which no file can."""
    try:
        "".join(found).encode()
    except UnicodeEncodeError:
        return None
    return found if is_list else None


def _unquoted(token: str) -> str:
    if "\\" not in token:
        return token[1:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(ast.literal_eval(token))
        except (ValueError, SyntaxError):
            return token[1:-1]


def _leaves(found: list[Any]) -> Iterator[Any]:
    todo = [found]
    while todo:
        each = todo.pop()
        if isinstance(each, list):
            todo.extend(reversed(each))
        else:
            yield each


def _without_brackets(texts: pl.Series) -> pl.Series:
    """The texts, those that are lists as their words; each different one is looked at once."""
    starts = texts.str.strip_chars_start()
    may_be = starts.str.starts_with("[") | starts.str.starts_with("(") | starts.str.starts_with("{")
    known = {}
    for text in texts.filter(may_be.fill_null(False)).unique():
        words = words_of_list(text)
        words = words_of_list(clean(text)) if words is None else words
        known[text] = text if words is None else ", ".join(words)
    return texts.replace(list(known), list(known.values())) if known else texts


def _joined(expression: pl.Expr, dtype: pl.DataType, field: Field, missing: Sequence[str]) -> pl.Expr:
    if isinstance(dtype, (pl.List, pl.Array)):
        inner = _joined(pl.element(), dtype.inner, field, missing)  # type: ignore[arg-type]
        lists = expression.arr.to_list() if isinstance(dtype, pl.Array) else expression
        return lists.list.eval(inner).list.join(", ", ignore_nulls=True)
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return _written(expression, dtype)
    if not (dtype.is_numeric() or dtype in (*LETTERS, pl.Boolean, pl.Null)):
        field.refuse_type(dtype, "texts must be strings, numbers or lists of them")
    if dtype.is_float():
        return expression.fill_nan(None).cast(pl.String).str.strip_suffix(".0")
    texts = expression.cast(pl.String)
    return texts if dtype not in LETTERS else pl.when(~texts.is_in([*EMPTY, *missing])).then(texts)


def _written(dates: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Dates as texts; one that no calendar has, as its number: Polars would panic."""
    ticks = dates.to_physical()
    day = 1 if not isinstance(dtype, pl.Datetime) else 86_400 * PER_SECOND[dtype.time_unit]
    if isinstance(dtype, pl.Datetime) and dtype.time_zone not in (None, *available_timezones()):
        dates = ticks.cast(pl.Datetime(dtype.time_unit))
    within = ticks.is_between(max(_FIRST_DAY * day, -(2**63)), min(_LAST_DAY * day, 2**63 - 1), closed="left")
    return pl.coalesce(pl.when(within).then(dates).cast(pl.String), ticks.cast(pl.String))
