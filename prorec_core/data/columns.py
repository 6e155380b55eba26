"""Raw columns turned into ids, times, ratings and texts, and what is wrong with them said in one line.

Knows types and values of columns. Knows nothing of formats of files or of filters.
"""

from __future__ import annotations

import difflib
import html
from typing import NoReturn

import polars as pl

from prorec_core.data.tables import Place, RawTable
from prorec_core.errors import UserError

_MICROSECONDS = 1_000_000
_TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)


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


def as_ids(column: pl.Series, place: str) -> pl.Series:
    """Ids as strings; whole numbers and strings are taken.

    Raises:
        UserError: another type, or an id that is missing (names the first row, counted from 1).
    """
    column = _plain(column)
    if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum)):
        _fail_type(column, place, "ids must be strings or whole numbers")
    ids = column.cast(pl.String)
    bad = ids.is_null() | (ids == "")
    if bad.any():
        raise UserError(
            f"column '{column.name}' has no id in {_first(bad, place)}", place=place, cure="Fill it in or drop the row"
        )
    return ids


def as_timestamps(column: pl.Series, place: str) -> tuple[pl.Series, str]:
    """Times as int64 without loss, and their unit.

    Whole numbers stay as they are ("as given"). Floats, dates and ISO 8601 strings become seconds since 1970, or
    microseconds when any of them has a fraction of a second; a time without a zone is taken as UTC.

    Raises:
        UserError: another type, or a time that is missing, negative or no time at all (names the first row).
    """
    column = _plain(column)
    name = column.name
    _refuse(column.is_null(), f"column '{name}' has no time", place)
    times, unit = _numbers_of(column, place)
    _refuse(times.is_null(), f"column '{name}' holds what is no time", place, column)
    _refuse(times < 0, f"column '{name}' holds a negative time", place, column)
    return times, unit


def as_ratings(column: pl.Series, place: str) -> pl.Series:
    """Ratings as float64; a missing one is null.

    Raises:
        UserError: a rating that is no number (names the first row).
    """
    column = _plain(column)
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        _fail_type(column, place, "ratings must be numbers")
    ratings = column.cast(pl.Float64, strict=False)
    _refuse(ratings.is_null() & column.is_not_null(), f"column '{column.name}' holds what is no number", place, column)
    return ratings.fill_nan(None)


def as_text(column: pl.Series, place: str) -> pl.Series:
    """Readable text: lists joined by commas, HTML entities decoded, whitespace made single; "" where there is none.

    Raises:
        UserError: a type that is no text (structures, binary).
    """
    column = _plain(column)
    frame = column.to_frame().select(_joined(pl.col(column.name), column.dtype, column, place))
    return pl.Series(column.name, [clean(text) for text in frame.to_series()], dtype=pl.String)


def clean(text: str | None) -> str:
    """Decode HTML entities, also those encoded twice, and make runs of whitespace one space."""
    text = text or ""
    while "&" in text and (decoded := html.unescape(text)) != text:
        text = decoded
    return " ".join(text.split())


def _joined(expression: pl.Expr, dtype: pl.DataType, column: pl.Series, place: str) -> pl.Expr:
    if isinstance(dtype, (pl.List, pl.Array)):
        inner = _joined(pl.element(), dtype.inner, column, place)  # type: ignore[arg-type]
        lists = expression.arr.to_list() if isinstance(dtype, pl.Array) else expression
        return lists.list.eval(inner).list.join(", ", ignore_nulls=True)
    if not (dtype.is_numeric() or dtype.is_temporal() or dtype in _TEXT_TYPES):
        _fail_type(column, place, "texts must be strings, numbers or lists of them")
    return expression.cast(pl.String)


def _numbers_of(column: pl.Series, place: str) -> tuple[pl.Series, str]:
    dtype = column.dtype
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False), "as given"
    if dtype.is_float() or dtype.is_decimal():
        return _from_seconds(column.cast(pl.Float64))
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return _from_microseconds(column.cast(pl.Datetime("us")).to_physical())
    if dtype != pl.String:
        _fail_type(column, place, "times must be numbers, dates or ISO 8601 strings")
    column = column.str.strip_chars()
    whole = column.cast(pl.Int64, strict=False)
    if not whole.has_nulls():
        return whole, "as given"
    seconds = column.cast(pl.Float64, strict=False)
    if seconds.null_count() < column.len():
        return _from_seconds(seconds)
    return _from_microseconds(_parse_iso(column))


def _parse_iso(column: pl.Series) -> pl.Series:
    try:
        return column.str.to_datetime(time_unit="us", time_zone="UTC", strict=False).to_physical()
    except pl.exceptions.ComputeError:
        return pl.Series(column.name, [None] * column.len(), dtype=pl.Int64)


def _from_seconds(seconds: pl.Series) -> tuple[pl.Series, str]:
    if not bool((seconds.floor() != seconds).any()):
        return seconds.cast(pl.Int64, strict=False), "seconds"
    return (seconds * _MICROSECONDS).round().cast(pl.Int64, strict=False), "microseconds"


def _from_microseconds(times: pl.Series) -> tuple[pl.Series, str]:
    if not bool((times % _MICROSECONDS != 0).any()):
        return times // _MICROSECONDS, "seconds"
    return times, "microseconds"


def _refuse(bad: pl.Series, problem: str, place: str, column: pl.Series | None = None) -> None:
    if bad.any():
        shown = f": '{column.filter(bad)[0]}'" if column is not None else ""
        raise UserError(
            f"{problem} in {_first(bad, place)}{shown}", place=place, cure="Correct the value or drop the row"
        )


def _plain(column: pl.Series) -> pl.Series:
    """The column under a name that Polars does not take for a pattern, as it does "*" and "^t.*$"."""
    name = column.name
    return column.alias(f"{name} ") if name == "*" or (name.startswith("^") and name.endswith("$")) else column


def _first(bad: pl.Series, place: str) -> str:
    """Where the first row that is marked stands: its line in a text file, else its number."""
    return Place.of(place).row(int(bad.arg_true()[0]))


def _fail_type(column: pl.Series, place: str, rule: str) -> NoReturn:
    raise UserError(f"column '{column.name}' has the type {column.dtype}", place=place, cure=rule.capitalize())
