"""Columns of the items file that are kept for rules: numbers, texts, truths and dates, each column of one kind.

Knows what raw columns hold and how the kinds are kept in a file; knows nothing of rules or models. A column with a type
of its own (Parquet, JSON Lines) keeps it. One of texts, as every column of CSV is, has a kind that all of its values
have, or the one that is declared for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from prorec_core.data.columns import LETTERS, PLAIN, Field, as_written, without_missing
from prorec_core.data.texts import clean, words_of_list
from prorec_core.errors import UserError
from prorec_core.values import AttributeKind

TYPES: Mapping[AttributeKind, pl.DataType] = {
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "date": pl.Datetime("us"),
    "texts": pl.List(pl.String),
    "text": pl.String(),
}
"""How each kind is kept; whole numbers as Int64. A date is UTC where a zone was given."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9:.,]+(?:[Zz]|[+-][0-9:]+)?)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRUTHS = {"true": True, "false": False}
_CODE = r"^[+-]?0[0-9]"
"""What is written like a number and is none: 007."""
_DIGITS = r"^[+-]?[0-9]+$"
_WHOLE_FLOAT = float(2**53)
"""Below it every whole number is one of float64."""


def kind_of(dtype: pl.DataType) -> AttributeKind:
    """The kind of a column as it is kept."""
    if dtype.is_numeric():
        return "number"
    return next(kind for kind, kept in TYPES.items() if kept == dtype)


def moment(text: str) -> int | None:
    """Microseconds from 1970 to a date, or date with time, of ISO 8601; without a zone in UTC. None: it is none.

    >>> moment("1970-01-02"), moment("1970-01-01 01:00+01:00"), moment("yesterday")
    (86400000000, 0, None)
    """
    if not _DATE.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text.upper().replace(",", "."))
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
        return (found - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def as_attribute(raw: pl.Series, place: str, missing: Sequence[str], declared: AttributeKind | None) -> pl.Series:
    """A raw column as it is kept; null where a value is missing.

    Args:
        raw: the column.
        place: of its table, for messages.
        missing: texts that mean that there is no value.
        declared: its kind, if that was said.

    Raises:
        UserError: a type that is no attribute, or a value that is not of the declared kind (names the first row).
    """
    field, column = Field(raw.name, place), raw.alias(PLAIN)
    if isinstance(column.dtype, pl.List | pl.Array):
        column = _lists(column, field)
    elif isinstance(column.dtype, pl.Decimal) and declared == "text":
        column = without_missing(column, missing).cast(pl.String)
    elif column.dtype.is_numeric():
        column = _numbers(without_missing(column, missing), field)
    elif column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        column = column.cast(pl.Datetime("us", getattr(column.dtype, "time_zone", None)), strict=False)
        column = column.to_physical().cast(pl.Datetime("us"))
    elif column.dtype == pl.Null:
        column = column.cast(TYPES[declared or "text"])
    elif column.dtype in LETTERS:
        return _of_texts(without_missing(column.cast(pl.String), missing), field, declared).alias(raw.name)
    elif column.dtype != pl.Boolean:
        field.refuse_type(column.dtype, "an attribute holds numbers, texts, lists of texts, true and false, or dates")
    found = kind_of(column.dtype)
    if declared not in (None, found):
        if declared == "text" and found in ("number", "boolean"):
            return column.cast(pl.String).alias(raw.name)
        raise UserError(
            f"column '{raw.name}' is of the kind {found}",
            place=place,
            cure=f"Convert it: it has to be {declared} (data.attribute_kinds, or what the model has)",
        )
    return column.alias(raw.name)


def _numbers(column: pl.Series, field: Field) -> pl.Series:
    cure = "Declare the column as text (data.attribute_kinds), correct the value or drop the row"
    if not (column.dtype.is_integer() or (isinstance(column.dtype, pl.Decimal) and not column.dtype.scale)):
        numbers = as_written(column).cast(pl.Float64)
        if isinstance(column.dtype, pl.Decimal):
            field.refuse(numbers.abs() >= _WHOLE_FLOAT, "holds more digits than a number keeps", column, cure)
        return numbers
    whole = column.cast(pl.Int64, strict=False)
    field.refuse(whole.is_null() & column.is_not_null(), "holds too large a number", column, cure)
    return whole


def _lists(column: pl.Series, field: Field) -> pl.Series:
    inner = getattr(column.dtype, "inner", None)
    if inner is None or inner.is_nested() or not (inner.is_numeric() or inner in (*LETTERS, pl.Null)):
        field.refuse_type(column.dtype, "lists of an attribute hold texts")
    return column.cast(pl.List(pl.String))


def _of_texts(texts: pl.Series, field: Field, declared: AttributeKind | None) -> pl.Series:
    there = texts.str.strip_chars()
    bad = f"holds what is not of the kind {declared} (data.attribute_kinds, or what the model has)"
    for kind, found in ((kind, _read(there, kind)) for kind in ((declared,) if declared else TYPES)):
        wrong = found.is_null() & there.is_not_null()
        if declared:
            field.refuse(
                wrong, bad, texts, "Correct the value; if it means none, leave it empty or have it in data.missing"
            )
        if kind == "text" or declared or (there.count() and not wrong.any()):
            return found
    raise AssertionError("every text is a text")


def _read(texts: pl.Series, kind: AttributeKind) -> pl.Series:
    """Texts as values of a kind, null where they are none."""
    if kind == "number":
        whole = texts.cast(pl.Int64, strict=False)
        numbers = whole if whole.null_count() == texts.null_count() else texts.cast(pl.Float64, strict=False)
        written = ~texts.str.contains(_CODE) & numbers.is_finite()
        if numbers.dtype.is_float():
            # Two codes of many digits would be one number.
            written &= (numbers.abs() < _WHOLE_FLOAT) | ~texts.str.contains(_DIGITS)
        return numbers.set(~written.fill_null(False), None)
    # Each different text is looked at once.
    different = texts.drop_nulls().unique()
    values = [_VALUES[kind](text) for text in different]
    read = pl.DataFrame({"text": different, "value": pl.Series(values, dtype=_LOOKED_AT.get(kind, TYPES[kind]))})
    found = pl.DataFrame({"text": texts}).join(read, on="text", how="left", maintain_order="left")["value"]
    return found.cast(TYPES[kind])


_VALUES = {
    "boolean": lambda text: _TRUTHS.get(text.lower()),
    "date": moment,
    "texts": words_of_list,
    "text": lambda text: clean(text) or None,
}
_LOOKED_AT: Mapping[AttributeKind, pl.DataType] = {"date": pl.Int64()}


def described(attributes: pl.DataFrame) -> dict[str, dict[str, object]]:
    """Of each column its kind and how many items have a value, for the profile."""
    columns = attributes.get_columns()
    return {column.name: {"kind": kind_of(column.dtype), "items": column.count()} for column in columns}
