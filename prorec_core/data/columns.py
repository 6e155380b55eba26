"""Raw columns turned into ids and ratings, and what is wrong with a column or a value said in one line.

Knows types and values of columns, and what counts as missing. Knows nothing of formats of files or of filters.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NoReturn

import polars as pl

from prorec_core.data.tables import Place, RawTable
from prorec_core.errors import UserError

LETTERS = (pl.String, pl.Categorical, pl.Enum)
"""Types whose values are texts."""
EMPTY = ("",)
"""What is missing where nothing is declared."""
PLAIN = "value"
"""Name of a column at work: Polars takes a name such as "^t.*$" for a pattern."""

_LONGEST = 60
PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 10**9}
"""Ticks a second of a date with time, by its unit."""


def need_columns(table: RawTable, wanted: dict[str, str]) -> None:
    """Check that columns exist; `wanted` maps each name to the setting that names it.

    Raises:
        UserError: names the missing column, those that exist and the nearest of them.
    """
    present = table.columns()
    for name, setting in wanted.items():
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1, cutoff=0.5)
            hint = f" (nearest: '{near[0]}')" if near else ""
            raise UserError(
                f"there is no column '{name}'",
                place=table.place,
                cure=f"Set {setting} to one of: {', '.join(present)}{hint}",
            )


@dataclass(frozen=True)
class Field:
    """A column in messages: its name, and the place of its table."""

    name: str
    place: str
    start: int = 0
    """Row of the table at which the values begin that rows are counted in."""

    def at(self, start: int) -> Field:
        """The column from a row on."""
        return replace(self, start=start)

    def refuse(
        self,
        bad: pl.Series,
        problem: str,
        values: pl.Series | None = None,
        cure: str = "Correct the value or drop the row",
    ) -> None:
        """Refuse the first of some rows, which is told with its value where values are given.

        Raises:
            UserError: there is such a row.
        """
        if bad.any():
            row = first(bad)
            held = f": {shown(value_at(values, row))}" if values is not None else ""
            raise UserError(f"column '{self.name}' {problem} in {self.row(row)}{held}", place=self.place, cure=cure)

    def refuse_type(self, dtype: pl.DataType, rule: str) -> NoReturn:
        """Refuse the column for its type.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"column '{self.name}' has the type {dtype}", place=self.place, cure=f"{rule[:1].upper()}{rule[1:]}"
        )

    def row(self, row: int) -> str:
        """A row in words, given its index."""
        return Place.of(self.place).row(self.start + row)


def without_missing(column: pl.Series, missing: Sequence[str]) -> pl.Series:
    """The column, null where a value is missing: an empty text, one of `missing` (blanks around it aside), or NaN.

    In a column of numbers those of `missing` that are numbers count.
    """
    if column.dtype.is_numeric():
        column = column.fill_nan(None) if column.dtype.is_float() else column
        numbers = pl.Series(list(missing), dtype=pl.String).str.strip_chars().cast(column.dtype, strict=False)
        return column.set(column.is_in(numbers.drop_nulls().implode()), None) if numbers.count() else column
    if column.dtype not in LETTERS:
        return column
    texts = column.cast(pl.String)
    gone = missing_texts(texts, missing)
    # A column without a missing value is not written anew.
    return texts.set(gone, None) if gone.any() else texts


def missing_texts(texts: pl.Series, missing: Sequence[str]) -> pl.Series:
    """Which texts are empty or one of `missing`, blanks around them aside; null where there is no text."""
    return texts.str.strip_chars().is_in([*EMPTY, *(word.strip() for word in missing)])


def as_ids(column: pl.Series, place: str, missing: Sequence[str] = EMPTY, beside: str = "") -> pl.Series:
    """Ids as strings; whole numbers and strings are taken.

    Args:
        column: the ids.
        place: of the column, for messages.
        missing: texts that mean that there is no id.
        beside: how the ids are written that these should meet, for messages.

    Raises:
        UserError: another type, or an id that is missing (names the first row, counted from 1).
    """
    field = Field(column.name, place)
    column = column.alias(PLAIN)
    ids = without_missing(id_texts(column, field, missing, beside), missing)
    bad = ids.is_null()
    if bad.any():
        refuse_id(field, first(bad), column[first(bad)])
    return ids


def id_texts(column: pl.Series, field: Field, missing: Sequence[str], beside: str) -> pl.Series:
    """Ids as strings; of texts those that count as missing are still there.

    Raises:
        UserError: another type than strings and whole numbers; a whole number that counts as missing.
    """
    column = column.alias(PLAIN)
    if not (column.dtype.is_integer() or column.dtype in (*LETTERS, pl.Null)):
        there = column.is_not_null()
        row = first(there) if there.any() else None
        held = "" if row is None else f", as {shown(value_at(column, row))} in {field.row(row)}"
        raise UserError(
            f"column '{field.name}' has the type {column.dtype}{held}{f'; {beside}' if beside else ''}",
            place=field.place,
            cure="Ids must be strings or whole numbers: write them so, as the other file does",
        )
    if column.dtype.is_integer():
        there = without_missing(column, missing)
        gone = there.is_null() & column.is_not_null()
        if gone.any():
            refuse_id(field, first(gone), column[first(gone)])
    return column.cast(pl.String)


def refuse_id(field: Field, row: int, value: Any) -> NoReturn:
    """Refuse a row for the lack of an id; `value` is what stands there.

    Raises:
        UserError: always.
    """
    told = "has no id" if value in (None, "") else "has an id that counts as missing"
    held = "" if value in (None, "") else f": {shown(value)}"
    raise UserError(
        f"column '{field.name}' {told} in {field.row(row)}{held}", place=field.place, cure="Fill it in or drop the row"
    )


def as_ratings(column: pl.Series, place: str, missing: Sequence[str] = EMPTY, start: int = 0) -> pl.Series:
    """Ratings as float64; a missing one is null.

    Args:
        column: the ratings, from row `start` of the table on.
        place: of the table, for messages.
        missing: texts that mean that there is no rating.
        start: see above.

    Raises:
        UserError: a rating that is no number, or an infinite one (names the first row).
    """
    field, column = Field(column.name, place, start), column.alias(PLAIN)
    if not (column.dtype.is_numeric() or column.dtype in (*LETTERS, pl.Null)):
        field.refuse_type(column.dtype, "ratings must be numbers")
    column = without_missing(column, missing)
    ratings = as_written(column).cast(pl.Float64, strict=False)
    cure = "Correct the value, or add it to data.missing if it means that there is none"
    field.refuse(ratings.is_null() & column.is_not_null(), "holds what is no number", column, cure)
    field.refuse(ratings.is_infinite(), "holds what is no finite number", column, cure)
    return ratings.fill_nan(None)


def as_written(numbers: pl.Series) -> pl.Series:
    """Numbers of 32 bits with a fraction as texts: 4.1 of them is less than 4.1 of 64 bits. Others as they are."""
    return numbers.cast(pl.String) if numbers.dtype == pl.Float32 else numbers


def first(bad: pl.Series) -> int:
    """Index of the first row that is marked."""
    return int(bad.arg_true()[0])


def value_at(column: pl.Series, row: int) -> Any:
    """A value for a message, given its index; a time that Python has no date for as a number."""
    dtype = column.dtype
    if not dtype.is_temporal():
        return column[row]
    ticks = column.to_physical()[row]
    seconds = ticks * 86_400 if dtype == pl.Date else ticks / PER_SECOND.get(getattr(dtype, "time_unit", "ns"), 1)
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        with contextlib.suppress(OverflowError):
            moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)
            return moment.date() if dtype == pl.Date else moment
    return f"{ticks}" if dtype == pl.Date else f"{seconds:g} s"


def shown(value: Any) -> str:
    """A value as it stands in a message: in quotes, in one line, shortened, what cannot be seen written out.

    >>> print(shown("a\\nb"), shown("7\\u00a0"), shown(24.0))
    'a\\nb' '7\\xa0' '24.0'
    """
    text = str(value)
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return "'" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text) + "'"
