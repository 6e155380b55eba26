"""Raw columns turned into times: numbers as given, dates, ISO 8601 texts, or texts as a declared format says.

Knows how times are written; knows nothing of files or filters. A text is never guessed at: day and month change places
between countries, and what is read wrongly in silence puts histories in a wrong order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.columns import EMPTY, LETTERS, PER_SECOND, PLAIN, Field, first, value_at, without_missing
from prorec_core.data.units import (
    LAST_SECOND,
    NANOSECONDS,
    PARTS_OF_SECOND,
    PLAUSIBLE_SECONDS,
    AboutTimes,
    Unit,
    about_dates,
    about_numbers,
    decided,
    refuse_beside_numbers,
)
from prorec_core.errors import UserError
from prorec_core.values import UNITS

# A time with a zone is stored as an instant: a zone of unknown name changes nothing, and is no reason to panic.
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")

_FIRST_SECOND = -62_135_596_800
"""Of the year 1."""

_SECOND_CENTURY = -59_011_459_200
"""Of the year 100."""
_STAND_IN = 2_524_608_000
"""Of 2050: what is dated so late stands for no time, as 9999-12-31 does. No later than that of today: what is odd of
data must not depend on when they are read."""

_ISO = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:(?:[Tt]| +)([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?)?"
    r"\s*(?:([Zz]|(?:Etc/)?UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2}(?::?[0-9]{2})?)?)(?:\[[\w/+-]+\])?)?)?$"
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
    times = Times(Field(column.name, place), form, missing)
    return times.join([times.read(column, 0)])


@dataclass(frozen=True)
class ReadTimes:
    """The times of some rows of a column.

    Attributes:
        times: numbers as they stand there (int64 or float64), or whole seconds since 1970 (int64).
        nanos: nanoseconds beyond those seconds, int64; None where there are none.
        about: what of them decides what is meant by the column.
    """

    times: pl.Series
    nanos: pl.Series | None
    about: AboutTimes


class Times:
    """One column of times, read batch by batch. `read` may be called by several threads.

    What is meant by a column is known once all of it is read: `as_timestamps` says what comes of it.
    """

    def __init__(self, field: Field, form: str | None, missing: Sequence[str]) -> None:
        """As `as_timestamps` has them."""
        self._field, self._form, self._missing = field, form, missing

    def read(self, batch: pl.Series, start: int) -> ReadTimes:
        """Some rows of the column, of which the first is its row `start`.

        Raises:
            UserError: as `as_timestamps`, of what one batch shows.
        """
        field, form, dtype, column = self._field.at(start), self._form, batch.dtype, batch.alias(PLAIN)
        if not (dtype.is_numeric() or dtype in (*LETTERS, pl.Date, pl.Null) or isinstance(dtype, pl.Datetime)):
            field.refuse_type(dtype, "times must be numbers, dates or ISO 8601 strings")
        column = without_missing(column, self._missing)
        field.refuse(column.is_null(), "has no time")
        if dtype in LETTERS:
            column = column.str.strip_chars()
        told = value_at(column, 0) if column.len() else None
        if dtype.is_temporal():
            seconds, nanos = _of_dates(column)
        elif form is not None and form not in UNITS:
            seconds, nanos = _of_format(column, field, form)
        elif (numbers := _as_numbers(column, field, form)) is not None:
            _check_numbers(numbers, column, field, form)
            return ReadTimes(numbers, None, about_numbers(numbers, start, told, form))
        else:
            seconds, nanos = _of_iso(column, field)
        if form is not None and ("%Y" in form or "%F" in form):
            told = f"holds a year of two digits, which '{form}' takes for one of the first century,"
            short = (seconds < _SECOND_CENTURY) & ~column.cast(pl.String).str.contains(r"[0-9]{4}")
            field.refuse(short, told, column, "Say in data.timestamp_format how it is written: %y is such a year")
        early = "Times are counted from 1970: correct the value or drop the row"
        field.refuse(seconds < 0, "holds a negative time", column, early)
        field.refuse(seconds > LAST_SECOND, "holds a time after the year 9999", column)
        exact = nanos if (nanos != 0).any() else None
        return ReadTimes(seconds, exact, about_dates(seconds, exact, start, told))

    def join(self, parts: Sequence[ReadTimes]) -> tuple[pl.Series, str]:
        """All rows of the column, given its batches in their order: times and unit as `as_timestamps` has them.

        Raises:
            UserError: the same, of what batches show beside each other.
        """
        unit = self.decided([(self._field, part.about) for part in parts])
        parts = [part for part in parts if part.about.rows] or parts[:1]
        return pl.concat([self.in_unit(part, unit) for part in parts]), unit.name

    def decided(self, seen: Sequence[tuple[Field, AboutTimes]]) -> Unit:
        """In which unit the column is, given what is known of all its batches, and the field of each, in their order.

        Raises:
            UserError: as `join`.
        """
        return decided(seen, self._form)

    def in_unit(self, part: ReadTimes, unit: Unit) -> pl.Series:
        """Some rows of the column in a unit, int64.

        Raises:
            UserError: a number that has no place there.
        """
        if not unit.numbers:
            return unit.of_dates(part.times, part.nanos)
        return unit.of_numbers(part.times, self._field.at(part.about.start))


def _of_dates(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Whole seconds since 1970, and nanoseconds beyond, of dates or dates with times."""
    ticks = column.to_physical().cast(pl.Int64)
    if not isinstance(column.dtype, pl.Datetime):
        return ticks * 86_400, ticks * 0
    per_second = PER_SECOND[column.dtype.time_unit]
    return ticks // per_second, ticks % per_second * (NANOSECONDS // per_second)


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
    if unit is not None:
        told = f"data.timestamp_format says that times are numbers of {unit}"
        field.refuse(numbers.is_null(), "holds what is no time", column, f"{told}: correct the value or drop the row")
    elif numbers.null_count() == column.len():
        return None
    elif numbers.has_nulls():
        row = first(numbers.is_null())
        refuse_beside_numbers(field.at(field.start + row), column[row])
    return numbers


def _check_numbers(numbers: pl.Series, column: pl.Series, field: Field, unit: str | None) -> None:
    """Refuse numbers that are no times."""
    field.refuse(numbers.is_null() | ~numbers.is_finite(), "holds what is no time", column)
    field.refuse(numbers < 0, "holds a negative time", column)
    if unit is not None:
        last = min(LAST_SECOND * PARTS_OF_SECOND[unit], 2**63 - 1)
        told = f"holds a time after the year 9999, if it is in {unit} (data.timestamp_format),"
        field.refuse(numbers > last, told, column)
    if numbers.dtype.is_float():
        field.refuse(numbers >= 2.0**63, "holds too large a time", column)


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
    seconds, nanos = _of_dates(found)
    if "f" in form:
        # Nanoseconds reach from 1677 to 2262 alone; who is beyond has microseconds.
        finer = texts.str.to_datetime(form, time_unit="ns", strict=False)
        same = (finer.dt.cast_time_unit("us") == found).fill_null(False)
        nanos = nanos.zip_with(~same, _of_dates(finer)[1].fill_null(0))
    return seconds, nanos


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


def shown_time(value: int, unit: str) -> str:
    """A time for people: a date where the unit is known, or where the number looks like seconds since 1970."""
    parts = PARTS_OF_SECOND.get(unit)
    low, high = PLAUSIBLE_SECONDS
    seconds = value // (parts or 1)
    if not _FIRST_SECOND <= seconds <= LAST_SECOND or (parts is None and not low <= value < high):
        return f"{value:,}"
    moment = datetime.fromtimestamp(seconds, UTC)
    text = moment.strftime(
        "%Y-%m-%d" if (moment.hour, moment.minute, moment.second) == (0, 0, 0) else "%Y-%m-%d %H:%M:%S"
    )
    return text if parts is not None else f"{value} ({text}, if these are seconds)"


def odd_times(times: npt.NDArray[np.int64], unit: str) -> list[str]:
    """What is told of an experiment's times, a sentence each; nothing of numbers without a unit.

    Args:
        times: in `unit`, shape (interactions,).
        unit: as a data set's profile names it.
    """
    if not len(times) or (parts := PARTS_OF_SECOND.get(unit)) is None:
        return []
    first, last = int(times.min()), int(times.max())
    found = []
    for count, when, extreme in (
        (int((times < PLAUSIBLE_SECONDS[0] * parts).sum()), "before 1990, the first", first),
        (int((times >= _STAND_IN * parts).sum()), "in 2050 or later, the last", last),
    ):
        if count:
            found.append(
                f"{count:,} of {len(times):,} interactions have a time {when} {shown_time(extreme, unit)}: see whether "
                "it is one, and whether data.timestamp_format says how times are written"
            )
    if first == last and len(times) > 1:
        found.append(f"all interactions have the time {shown_time(first, unit)}: it tells nothing of their order")
    return found
