"""Times in every manner in which exporters write them, and what is no time, told by its row."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from prorec_core.config_data import DataConfig
from prorec_core.data.columns import Field
from prorec_core.data.times import Times, as_timestamps, odd_times
from prorec_core.errors import UserError

NEW_YEAR = 1_388_534_400


@pytest.mark.parametrize(
    ("values", "expected", "unit"),
    [
        ([3, 1], [3, 1], "as given"),
        (["3", " 1"], [3, 1], "as given"),
        ([881250949.0, 891717742.0], [881250949, 891717742], "seconds"),
        (["881250949.0", "1e9"], [881250949, 10**9], "seconds"),
        ([1388534400.25, 2.0], [NEW_YEAR * 10**6 + 250_000, 2_000_000], "microseconds"),
        ([dt.date(2014, 1, 1)], [NEW_YEAR], "seconds"),
        ([dt.datetime(2014, 1, 1, 0, 0, 5)], [NEW_YEAR + 5], "seconds"),
        ([dt.datetime(2014, 1, 1, 0, 0, 0, 7)], [NEW_YEAR * 10**6 + 7], "microseconds"),
        (["2014-01-01", "2014-01-02"], [NEW_YEAR, NEW_YEAR + 86400], "seconds"),
        (["2014-01-01T00:00:05Z", "2014-01-01T01:00:00+01:00"], [NEW_YEAR + 5, NEW_YEAR], "seconds"),
        (["2014-01-01 00:00:05"], [NEW_YEAR + 5], "seconds"),
    ],
)
def test_times_are_kept_without_loss(values: list[Any], expected: list[int], unit: str) -> None:
    times, found = as_timestamps(pl.Series("timestamp", values), "log.csv")
    assert times.dtype == pl.Int64 and times.to_list() == expected and found == unit


@given(st.lists(st.integers(0, 2**62), min_size=1))
def test_whole_numbers_survive_as_numbers_and_as_strings(values: list[int]) -> None:
    for column in (pl.Series(values, dtype=pl.Int64), pl.Series([str(value) for value in values])):
        assert as_timestamps(column, "log.csv", "nanoseconds")[0].to_list() == values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, None], "has no time in row 2"),
        ([1, 2, -3], "negative time in row 3: '-3'"),
        ([0.5, float("nan")], "has no time in row 2"),
        ([float("inf")], "no time in row 1"),
        (["1", "soon"], "no time in row 2: 'soon'"),
        (["2014-01-01", "soon"], "no time in row 2: 'soon'"),
        (["soon", "later"], "no time in row 1: 'soon'"),
        (["1960-01-01"], "negative time in row 1"),
        ([2**63], "no time in row 1"),
        ([True], "has the type Boolean"),
        ([[1]], "has the type List"),
    ],
)
def test_what_is_no_time_is_refused_by_row(values: list[Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        as_timestamps(pl.Series("timestamp", values), "data/log.csv")
    message = str(caught.value)
    assert message.startswith("data/log.csv: column 'timestamp'") and said in message and "\n" not in message


def times_of(values: list[Any], form: str | None = None, dtype: Any = None) -> tuple[list[int], str]:
    times, unit = as_timestamps(pl.Series("timestamp", values, dtype=dtype), "log.csv", form)
    return times.to_list(), unit


def refusal(values: list[Any] | pl.Series, form: str | None = None) -> str:
    column = values if isinstance(values, pl.Series) else pl.Series("timestamp", values)
    with pytest.raises(UserError) as caught:
        as_timestamps(column, "log.csv", form)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-31 10:00:00 UTC",
        "2024-01-31 10:00:00.000 UTC",
        "2024-01-31 10:00:00+00",
        "2024-01-31T10:00:00.000Z",
        "2024-01-31t10:00:00z",
        "2024-01-31 12:00:00.000000 +0200",
        "2024-01-31 12:00:00.0000000 +02:00",
        "2024-01-31 04:30:00-05:30",
        "2024-01-31T10:00",
        "2024-01-31T10",
        " 2024-01-31 10:00:00 ",
        "2024-01-31T11:00:00+01:00[Europe/Paris]",
        "2024-01-31T10:00:00,000",
    ],
)
def test_one_moment_is_one_number_however_databases_write_it(text: str) -> None:
    moment = int(dt.datetime(2024, 1, 31, 10, tzinfo=dt.UTC).timestamp())
    assert times_of([text]) == ([moment], "seconds")
    assert times_of(["2024-01-31", text, "2024-01-31T10:00:00.5+00:00"]) == (
        [(moment - 36_000) * 10**6, moment * 10**6, moment * 10**6 + 500_000],
        "microseconds",
    )


moments = st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(9999, 12, 30))
zones = st.none() | st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(
    lambda delta: dt.timedelta(seconds=int(delta.total_seconds()))))  # fmt: skip


@given(st.lists(st.tuples(moments, zones, st.sampled_from("T ")), min_size=1, max_size=8))
def test_what_python_writes_is_read_as_that_moment(found: list[tuple[dt.datetime, Any, str]]) -> None:
    aware = [moment.replace(tzinfo=zone) for moment, zone, _ in found]
    times, unit = times_of([each.isoformat(sep) for each, (_, _, sep) in zip(aware, found, strict=True)])
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    since = [(each if each.tzinfo else each.replace(tzinfo=dt.UTC)) - epoch for each in aware]
    step = dt.timedelta(seconds=1) if unit == "seconds" else dt.timedelta(microseconds=1)
    assert times == [each // step for each in since]


@given(
    st.dates(dt.date(1970, 1, 1), dt.date(2068, 12, 31)),
    st.sampled_from(
        ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%d/%m/%y", "%b %d %Y", "%d %B %Y", "%Y.%m.%d"]
    ),
    st.sampled_from(["", " 10:00", " 10:00:00"]),
    st.booleans(),
)
def test_other_dates_are_refused_and_read_as_declared(day: dt.date, form: str, time: str, after_iso: bool) -> None:
    text = day.strftime(form) + time
    row = 2 if after_iso else 1
    message = refusal([*(["2024-01-31"] if after_iso else []), text])
    assert f"row {row}: '{text}'" in message and "data.timestamp_format" in message
    declared = form + {0: "", 6: " %H:%M", 9: " %H:%M:%S"}[len(time)]
    seconds = int(dt.datetime(day.year, day.month, day.day, 10 if time else 0, tzinfo=dt.UTC).timestamp())
    assert times_of([text], DataConfig(timestamp_format=declared).timestamp_format) == ([seconds], "seconds")


@pytest.mark.parametrize(
    "text",
    [
        "01/03/2024",
        "2024-02-30",
        "2024-13-01",
        "2024-01-31 25:00:00",
        "2024-01-31 10:60:00",
        "2024-01-31 10:00:00 EST",
        "2024-01-31 10:00:00 Europe/Paris",
        "2024-01-31 10:00:00 AM",
        "2024-W05-3",
        "31-JAN-24",
        "Wed, 31 Jan 2024 10:00:00 GMT",
        "2024-1-31",
        "24-01-31",
        "\u0662\u0660\u0662\u0664-01-31",
        "NaT",
        "x" * 5000,
    ],
)
def test_a_row_that_is_no_time_is_named_and_never_null(text: str) -> None:
    message = refusal(["2024-01-31 10:00:00", text])
    assert "holds what is no time in row 2" in message and "ISO 8601" in message


@pytest.mark.parametrize(
    "text",
    ["3 days, 2:00:00", "PT5M", "P3DT2H", "2:00:00", "5 days", "0 days 00:05:00", "-1 day, 23:00:00", "1 mon 3 days"],
)
def test_a_duration_is_told_to_be_one(text: str) -> None:
    assert f"holds a duration, which is no time, in row 2: '{text}'" in refusal(["2024-01-31", text])


def test_columns_of_durations_and_of_times_of_day_are_refused_by_type() -> None:
    assert "has the type Duration" in refusal([dt.timedelta(days=3)])
    assert "has the type Time" in refusal([dt.time(10)])


@pytest.mark.parametrize(
    ("unit", "ticks", "expected", "told"),
    [
        ("ms", 1_500, 1_500_000, "microseconds"),
        ("us", 1_500_000, 1_500_000, "microseconds"),
        ("ns", 1_500_000_000, 1_500_000, "microseconds"),
        ("ns", 1_500_000_007, 1_500_000_007, "nanoseconds"),
        ("ms", 2_000, 2, "seconds"),
    ],
)
def test_dates_with_times_of_every_unit(unit: Any, ticks: int, expected: int, told: str) -> None:
    for zone in (None, "UTC", "Europe/Berlin"):
        column = pl.Series("timestamp", [0, ticks]).cast(pl.Datetime(unit, zone))
        times, found = as_timestamps(column, "log.parquet")
        assert (times.to_list(), found) == ([0, expected], told)


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_dates_beyond_all_calendars_are_refused(unit: Any) -> None:
    message = refusal(pl.Series("timestamp", [0, 2**62]).cast(pl.Datetime(unit)))
    assert "holds a time after the year 9999 in row 2: '" in message
    message = refusal(pl.Series("timestamp", [0, -(2**62)]).cast(pl.Datetime(unit, "UTC")))
    assert "holds a negative time in row 2: '" in message


def test_days_beyond_all_calendars_are_refused() -> None:
    for day, said in ((2**31 - 1, "after the year 9999"), (-(2**31), "negative time")):
        days = pl.Series("timestamp", [0, day], dtype=pl.Int32).cast(pl.Date)
        assert f"{said} in row 2: '{day}'" in refusal(days)


def test_a_zone_of_unknown_name_is_an_instant_all_the_same(tmp_path: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = pa.array([0, 5_000_000], pa.int64()).cast(pa.timestamp("us", "Mars/Phobos"))
    pq.write_table(pa.table({"timestamp": times, "user": [1, 2]}), tmp_path / "log.parquet")
    column = pl.scan_parquet(tmp_path / "log.parquet").select("timestamp").collect()["timestamp"]
    assert as_timestamps(column, "log.parquet")[0].to_list() == [0, 5]
    assert "negative time in row 1: '1969-12-31" in refusal(
        pl.Series("timestamp", [-1]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )


SECONDS = [1_600_000_000 + 50 * place for place in range(40)]


@pytest.mark.parametrize("factor", [10**3, 10**6, 10**9])
@pytest.mark.parametrize("kind", [int, str, float])
def test_seconds_and_finer_units_in_one_column_are_refused(factor: int, kind: Any) -> None:
    values = [*SECONDS, SECONDS[0] * factor, 0]
    message = refusal([kind(value) for value in values])
    assert "in seconds (row 1: '1600000000" in message and "seconds (row 41: '1" in message
    assert "data.timestamp_format" in message


def test_numbers_of_one_scale_are_taken_as_given() -> None:
    ordinals = list(range(50))
    assert times_of(ordinals) == (ordinals, "as given")
    assert times_of(SECONDS)[0] == SECONDS
    # So many microseconds since a start of one's own run through all that looks like seconds and milliseconds.
    running = list(range(0, 3_000_000_000_000, 10_000_000_000))
    assert times_of([*running, 700_000_000])[0] == [*running, 700_000_000]
    # Dates as numbers sort as dates do.
    assert times_of([20240131, 20240201]) == ([20240131, 20240201], "as given")


def test_a_unit_may_be_declared() -> None:
    assert times_of([3, 1], "milliseconds") == ([3, 1], "milliseconds")
    assert times_of(["1600000000.25", "1"], "seconds") == ([1_600_000_000_250_000, 10**6], "microseconds")
    assert times_of(["1600000000123.5"], "milliseconds") == ([1_600_000_000_123_500], "microseconds")
    assert times_of([1_600_000_000, 1_600_000_000_123], "milliseconds")[1] == "milliseconds"
    assert "after the year 9999" in refusal([*SECONDS, SECONDS[0] * 1000], "seconds")
    assert "numbers of seconds" in refusal(["1600000000", "2024-01-31"], "seconds")
    assert "no time in row 1: '2024-01-31'" in refusal(["2024-01-31"], "seconds")


def test_numbers_among_dates_and_dates_among_numbers_are_named() -> None:
    assert "row 2: '2024-01-31'" in refusal(["1600000000", "2024-01-31"])
    assert "row 2: '-5'" in refusal(["1600000000.5", "-5"])
    assert "row 1: '1e300'" in refusal(["1e300", "0.5"])


def test_formats_are_followed_and_what_differs_is_named() -> None:
    assert times_of(["01/03/2024", "1/4/2024"], "%m/%d/%Y")[0] == [1_704_240_000, 1_704_326_400]
    assert times_of(["01/03/2024 11:00 +0100"], "%d/%m/%Y %H:%M %z")[0] == [1_709_287_200]
    assert times_of([20240131], "%Y%m%d")[0] == [1_706_659_200]
    message = refusal(["01/03/2024", "13/13/2024"], "%m/%d/%Y")
    assert "not written as '%m/%d/%Y'" in message and "row 2: '13/13/2024'" in message
    assert "has the type Float64" in refusal([0.5], "%m/%d/%Y")
    assert times_of([dt.date(1970, 1, 2)], "%m/%d/%Y")[0] == [86_400], "a date needs no format"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("", "at least 1 character"),
        ("iso", "year, month and day"),
        ("%q", "no part of a format"),
        ("%", "no part of a format"),
        ("%Y-%m-%", "no part of a format"),
        ("%H:%M", "year, month and day"),
        ("%d/%m", "year, month and day"),
        ("%Y-%m-%d %H", "both hour and minute"),
        ("%Y-%m-%d %I:%M", "%p"),
        ("%Y-%m-%d %H:%M %Z", "%z"),
        ("%Y" * 60, "at most 100 characters"),
    ],
)
def test_a_format_that_cannot_work_is_refused_before_anything_is_read(form: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataConfig(timestamp_format=form)


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%d.%m.%y %H:%M:%S%.f", "%s", "%c", "%D %T", "%Y-%j", "%-d %b %Y", "%F", "seconds"]
)
def test_formats_that_can_work_are_taken(form: str) -> None:
    assert DataConfig(timestamp_format=form).timestamp_format == form


def test_a_time_that_is_declared_missing_is_missing() -> None:
    with pytest.raises(UserError, match="has no time in row 2"):
        as_timestamps(pl.Series("t", ["2024-01-31", " NULL"]), "f", missing=["NULL"])


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["1600000000", "1600000001.5", "1600000000000", "7", "1e9", "2024-01-31", "2024-01-31 10:00:00.25", "x", ""]
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 6),
)
def test_batches_are_read_as_the_whole_column_is(texts: list[str], cut: int) -> None:
    """Where both are refused, what is told first may differ: a batch knows nothing of those below it."""
    column = pl.Series("t", texts)
    times = Times(Field("t", "f"), None, ())
    try:
        expected, unit = as_timestamps(column, "f", missing=())
    except UserError:
        with pytest.raises(UserError):
            times.join([times.read(column[:cut], 0), times.read(column[cut:], cut)])
        return
    found, told = times.join([times.read(column[:cut], 0), times.read(column[cut:], cut)])
    assert found.equals(expected) and told == unit


def test_a_fraction_as_python_writes_it_is_read() -> None:
    form = DataConfig(timestamp_format="%Y-%m-%d %H:%M:%S.%f").timestamp_format
    texts = [f"2014-01-01 00:00:05.{digits}" for digits in ("5", "123", "123456")]
    start = (NEW_YEAR + 5) * 10**6
    assert times_of(texts, form) == ([start + 500_000, start + 123_000, start + 123_456], "microseconds")
    nine = [*texts, "2014-01-01 00:00:05.123456789", "9014-01-01 00:00:05"]
    assert times_of(nine[:-1], form)[0][-1] == (NEW_YEAR + 5) * 10**9 + 123_456_789, "nanoseconds are not lost"
    assert times_of([nine[-1]], form)[1] == "seconds", "nor what nanoseconds do not reach"


def test_a_fraction_without_a_dot_says_how_many_digits_it_has() -> None:
    with pytest.raises(ValidationError, match=r"%f alone counts nanoseconds: write %\.f"):
        DataConfig(timestamp_format="%Y-%m-%d %H:%M:%S,%f")
    form = DataConfig(timestamp_format="%Y-%m-%d %H:%M:%S,%3f").timestamp_format
    assert times_of(["2014-01-01 00:00:05,250"], form) == ([(NEW_YEAR + 5) * 10**6 + 250_000], "microseconds")


def test_whole_numbers_of_a_type_with_fractions_may_be_milliseconds() -> None:
    """What a program makes of whole numbers of which one is missing."""
    times, unit = as_timestamps(pl.Series([1.7e12, 1.7e12 + 1]), "log.csv")
    assert (times.to_list(), unit) == ([1_700_000_000_000, 1_700_000_000_001], "as given")


def test_fractions_of_a_unit_that_is_not_declared_are_refused() -> None:
    times = pl.Series("time", [1.7e12, 1.7e12 + 0.5])
    with pytest.raises(UserError, match="fractions of a unit that is not declared, as 1,700,000,0"):
        as_timestamps(times, "log.csv")
    assert as_timestamps(times, "log.csv", "milliseconds")[0].to_list() == [17 * 10**14, 17 * 10**14 + 500]


def test_a_zone_by_its_name_alone_is_not_taken_for_utc() -> None:
    with pytest.raises(UserError, match="no time in row 1"):
        as_timestamps(pl.Series(["2023-11-14T22:13:20[Europe/Berlin]"]), "log.csv")
    assert as_timestamps(pl.Series(["2014-01-01T01:00:00+01:00[Europe/Berlin]"]), "log.csv")[0].to_list() == [NEW_YEAR]


def test_a_year_of_two_digits_is_told_for_what_it_is() -> None:
    for text, form in (("29/06/22", "%d/%m/%Y"), ("22-06-29", "%F")):
        with pytest.raises(UserError, match=rf"a year of two digits.* '{text}'\. Say in .*: %y is such a year"):
            times_of([text], form)
    for text in ("29/06/1922", "01/01/0001"):
        with pytest.raises(UserError, match="holds a negative time"):
            times_of([text], "%d/%m/%Y")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        ([1_700_000_000, 1_700_000_001], []),
        ([0, 5, 1_700_000_000], ["2 of 3 interactions have a time before 1990, the first 1970-01-01: see"]),
        (
            [1_700_000_000, 253_402_214_400],
            ["1 of 2 interactions have a time in 2050 or later, the last 9999-12-31: see"],
        ),
        ([1_700_006_400] * 2, ["all interactions have the time 2023-11-15: it tells nothing of their order"]),
        ([1_700_006_400], []),
        ([], []),
    ],
)
def test_what_is_odd_of_times_is_told(seconds: list[int], told: list[str]) -> None:
    for unit, parts in (("seconds", 1), ("milliseconds", 1000)):
        found = odd_times(np.array(seconds, np.int64) * parts, unit)
        assert len(found) == len(told) and all(map(str.startswith, found, told)), found
    assert odd_times(np.array(seconds, np.int64), "as given") == []
