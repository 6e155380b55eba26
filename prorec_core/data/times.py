"""Raw columns turned into times: numbers as given, dates, ISO 8601 texts, or texts as a declared format says.

Knows how times are written; knows nothing of files or filters. A text is never guessed at: day and month change places
between countries, and what is read wrongly in silence puts histories in a wrong order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import polars as pl

from prorec_core.data.columns import EMPTY, LETTERS, PER_SECOND, PLAIN, Field, first, shown, without_missing
from prorec_core.errors import UserError
from prorec_core.values import UNITS

# A time with a zone is stored as an instant: a zone of unknown name changes nothing, and is no reason to panic.
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")

_NANOSECONDS = 10**9
_MICROSECONDS = 10**6
_LAST_SECOND = 253_402_300_799
"""Of the year 9999."""
_PLAUSIBLE = (631_152_000, 4_102_444_800)
"""Seconds of the years 1990 to 2099."""
_PARTS = {"seconds": 1, "milliseconds": 10**3, "microseconds": _MICROSECONDS, "nanoseconds": _NANOSECONDS}

_ISO = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:(?:[Tt]| +)([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?)?"
    r"\s*([Zz]|(?:Etc/)?UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2}(?::?[0-9]{2})?)?)?(?:\[[\w/+-]+\])?)?$"
)
_DURATION = re.compile(
    r"-?P(?=[0-9T])[0-9.,YMWDTHS]+|(?:[+-]?[0-9]+ (?:years?|mons?|months?|weeks?|days?),? ?)*"
    r"(?:[+-]?[0-9]+:[0-9]{2}(?::[0-9.]+)?)?"
)
_HOW = (
    "Write it as ISO 8601 does (2024-01-31, 2024-01-31 10:00:00, 2024-01-31T10:00:00Z), or say in "
    "data.timestamp_format (--timestamp-format) how it is written, as '%m/%d/%Y' or '%d/%m/%Y'"
)


def as_timestamps(
    column: pl.Series, place: str, form: str | None = None, missing: Sequence[str] = EMPTY
) -> tuple[pl.Series, str]:
    """Times as int64 without loss, and their unit.

    Whole numbers stay as they are ("as given", or the unit declared). Numbers with a fraction are seconds since 1970
    unless declared otherwise. Dates and texts become seconds since 1970, or microseconds or nanoseconds where any of
    them needs it; a time without a zone is taken as UTC.

    Args:
        column: the times.
        place: of the column, for messages.
        form: how they are written (`data.timestamp_format`): a format of texts, or a unit of numbers; None: texts are
            ISO 8601.
        missing: texts that mean that there is no time.

    Raises:
        UserError: another type; a time that is missing, negative or written in another way (names the first row);
            numbers of which some look like seconds and some like milliseconds since 1970.
    """
    field, dtype, column = Field(column.name, place), column.dtype, column.alias(PLAIN)
    if not (dtype.is_numeric() or dtype in (*LETTERS, pl.Date, pl.Null) or isinstance(dtype, pl.Datetime)):
        field.refuse_type(dtype, "times must be numbers, dates or ISO 8601 strings")
    column = without_missing(column, missing)
    field.refuse(column.is_null(), "has no time")
    if dtype in LETTERS:
        column = column.str.strip_chars()
    if dtype.is_temporal():
        seconds, nanos = _of_dates(column)
    elif form is not None and form not in UNITS:
        seconds, nanos = _of_format(column, field, form)
    elif (numbers := _as_numbers(column, field, form)) is not None:
        return _of_numbers(numbers, column, field, form)
    else:
        seconds, nanos = _of_iso(column, field)
    early = "Times are counted from 1970: correct the value or drop the row"
    field.refuse(seconds < 0, "holds a negative time", column, early)
    field.refuse(seconds > _LAST_SECOND, "holds a time after the year 9999", column)
    return _in_coarsest_unit(seconds, nanos)


def _of_dates(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Whole seconds since 1970, and nanoseconds beyond, of dates or dates with times."""
    ticks = column.to_physical().cast(pl.Int64)
    if not isinstance(column.dtype, pl.Datetime):
        return ticks * 86_400, ticks * 0
    per_second = PER_SECOND[column.dtype.time_unit]
    return ticks // per_second, ticks % per_second * (_NANOSECONDS // per_second)


def _as_numbers(column: pl.Series, field: Field, unit: str | None) -> pl.Series | None:
    """The column as numbers; None where it holds texts of which none is a number.

    Raises:
        UserError: some are numbers and some are not, or numbers were declared.
    """
    dtype = column.dtype
    if dtype.is_integer() or (dtype.is_decimal() and getattr(dtype, "scale", 0) == 0):
        return column.cast(pl.Int64, strict=False)
    if dtype.is_numeric():
        return column.cast(pl.Float64)
    whole = column.cast(pl.Int64, strict=False)
    if not whole.has_nulls():
        return whole
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() == column.len() and unit is None:
        return None
    told = "Other rows hold numbers" if unit is None else f"data.timestamp_format says that times are numbers of {unit}"
    field.refuse(numbers.is_null(), "holds what is no time", column, f"{told}: correct the value or drop the row")
    return numbers


def _of_numbers(numbers: pl.Series, column: pl.Series, field: Field, unit: str | None) -> tuple[pl.Series, str]:
    """Whole numbers as they are, others in a unit in which they are whole; and the unit."""
    field.refuse(numbers.is_null() | ~numbers.is_finite(), "holds what is no time", column)
    field.refuse(numbers < 0, "holds a negative time", column)
    if unit is None:
        _refuse_two_units(numbers, column, field)
    else:
        last = min(_LAST_SECOND * _PARTS[unit], 2**63 - 1)
        told = f"holds a time after the year 9999, if it is in {unit} (data.timestamp_format),"
        field.refuse(numbers > last, told, column)
    if numbers.dtype == pl.Int64:
        return numbers, unit or "as given"
    unit = unit or "seconds"
    if bool((numbers.floor() != numbers).any()):
        finer = "microseconds" if unit in ("seconds", "milliseconds") else "nanoseconds"
        numbers, unit = (numbers * (_PARTS[finer] // _PARTS[unit])).round(), finer
    times = numbers.cast(pl.Int64, strict=False)
    field.refuse(times.is_null(), "holds too large a time", column)
    return times, unit


def _refuse_two_units(numbers: pl.Series, column: pl.Series, field: Field) -> None:
    """Refuse plausible seconds since 1970 beside plausible milliseconds, and so on.

    Numbers that merely run from small to large are none of these: they fill what lies between.
    """
    low, high = _PLAUSIBLE
    found = {unit: (numbers >= low * parts) & (numbers < high * parts) for unit, parts in _PARTS.items()}
    first_rows = {unit: first(rows) for unit, rows in found.items() if rows.any()}
    if len(first_rows) < 2:
        return
    least = next(iter(first_rows))
    large = int((numbers >= low * _PARTS[least]).sum())
    if sum(int(rows.sum()) for rows in found.values()) < 0.95 * large:
        return
    told = " and ".join(f"in {unit} ({field.row(row)}: {shown(column[row])})" for unit, row in first_rows.items())
    raise UserError(
        f"column '{field.name}' holds times {told}",
        place=field.place,
        cure="Write all of them in one unit; if they are in one, say which in data.timestamp_format, as 'seconds'",
    )


def _of_format(column: pl.Series, field: Field, form: str) -> tuple[pl.Series, pl.Series]:
    """Seconds and nanoseconds of texts, or of whole numbers written like 20240131, of a format that was declared."""
    texts = column.cast(pl.String) if column.dtype.is_integer() else column
    if texts.dtype != pl.String:
        field.refuse_type(texts.dtype, f"texts can be written as '{form}' (data.timestamp_format), numbers have a unit")
    try:
        found = texts.str.to_datetime(form, time_unit="us", strict=False)
    except pl.exceptions.PolarsError as error:
        said = str(error).splitlines()[0]
        raise UserError(
            f"'{form}' cannot be used ({said})", place="data.timestamp_format", cure="Correct the format"
        ) from error
    told = f"holds what is not written as '{form}' (data.timestamp_format)"
    field.refuse(found.is_null(), told, texts, "Correct the value or the format")
    return _of_dates(found)


def _of_iso(texts: pl.Series, field: Field) -> tuple[pl.Series, pl.Series]:
    """Seconds and nanoseconds of ISO 8601 texts, with `T` or a blank, with or without fraction and zone."""
    date, hour, minute, second, fraction, zone = texts.str.extract_groups(_ISO).struct.unnest().get_columns()
    days = date.str.to_date("%Y-%m-%d", strict=False).to_physical().cast(pl.Int64)
    hour, minute, second = (_number(part) for part in (hour, minute, second))
    digits = zone.str.replace_all("[^0-9]", "")
    off_hour, off_minute, off_second = (_number(digits.str.slice(start, 2)) for start in (0, 2, 4))
    off = off_hour * 3600 + off_minute * 60 + off_second
    off = off * (1 - 2 * zone.str.starts_with("-").fill_null(False).cast(pl.Int64))
    possible = (hour < 24) & (minute < 60) & (second < 60) & (off_hour < 24) & (off_minute < 60) & (off_second < 60)
    bad = days.is_null() | ~possible
    if bad.any() and _DURATION.fullmatch(texts[first(bad)]):
        cure = "Name the column of the time itself in data.timestamp_column"
        field.refuse(bad, "holds a duration, which is no time,", texts, cure)
    field.refuse(bad, "holds what is no time", texts, _HOW)
    nanos = _number(fraction.str.pad_end(9, "0"))
    return days * 86_400 + hour * 3600 + minute * 60 + second - off, nanos


def _number(digits: pl.Series) -> pl.Series:
    return digits.cast(pl.Int64, strict=False).fill_null(0)


def _in_coarsest_unit(seconds: pl.Series, nanos: pl.Series) -> tuple[pl.Series, str]:
    if not bool((nanos != 0).any()):
        return seconds, "seconds"
    if not bool((nanos % 1000 != 0).any()) or int(seconds.max() or 0) >= 2**63 // _NANOSECONDS:  # type: ignore[arg-type]
        return seconds * _MICROSECONDS + nanos // 1000, "microseconds"
    return seconds * _NANOSECONDS + nanos, "nanoseconds"
