"""What columns could be, by their names and first values. Knows how people name columns; knows nothing of files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from prorec_core.data.columns import LETTERS
from prorec_core.data.units import PARTS_OF_SECOND

_USERS = (
    "userid", "user", "uid", "customerid", "customer", "reviewerid", "memberid", "visitorid", "accountid", "clientid",
    "buyerid", "username", "sessionid", "session",
)  # fmt: skip
_ITEMS = (
    "itemid", "item", "iid", "productid", "product", "sku", "parentasin", "asin", "articleid", "article", "movieid",
    "bookid", "trackid", "songid", "artistid", "businessid", "newsid", "videoid", "goodsid", "offerid", "gameid",
)  # fmt: skip
_TIMES = (
    "timestamp", "time", "ts", "datetime", "date", "createdat", "eventtime", "unixreviewtime", "tdat", "dateadded",
    "orderdate", "orderedat", "purchasedate", "purchasedat", "eventdate", "day",
)  # fmt: skip
_RATINGS = ("rating", "overall", "stars", "score", "rate")
_TITLES = ("title", "name", "productname", "itemname", "movietitle", "prodname", "producttitle", "appname")
_TEXTS = ("categories", "category", "genres", "genre", "class", "brand", "store", "tags", "description", "detaildesc")
_SINCE, _AHEAD = datetime(1990, 1, 1, tzinfo=UTC), timedelta(days=2)
_FORMATS = (
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y",
    "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y", "%d/%m/%Y",
    "%m/%d/%Y %I:%M:%S %p", "%a %b %d %H:%M:%S %z %Y", "%d %b %Y", "%b %d, %Y", "%m %d, %Y",
)  # fmt: skip


@dataclass(frozen=True)
class Roles:
    """Which column could be what; None and () where none could."""

    user: str | None
    item: str | None
    time: str | None
    rating: str | None
    texts: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What the table could be: "interactions", "items" or ""."""
        if self.user and self.item:
            return "interactions"
        return "items" if self.item and self.texts else ""


def roles_of(names: Sequence[str]) -> Roles:
    """What the columns of a table could be, by their names."""
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(names)}

    def first(known: Sequence[str]) -> str | None:
        return next((plain[word] for word in known if word in plain), None)

    user, item = first(_USERS), first(_ITEMS)
    title = first(_TITLES)
    texts = [title, *(plain[word] for word in _TEXTS if word in plain)]
    # In a catalogue the bare "id" is the item's.
    item = item or (plain.get("id") if user is None else None)
    return Roles(user, item, first(_TIMES), first(_RATINGS), tuple(text for text in texts if text))


@dataclass(frozen=True)
class TimeGuess:
    """How times could be written: the value for `data.timestamp_format`, and what speaks for it."""

    format: str | None
    words: str


def guess_times(values: pl.Series) -> TimeGuess:
    """How the times of a column could be written, from some of its values.

    Args:
        values: as a reader gives them.
    """
    known = values.drop_nulls()
    if not len(known) or known.dtype.is_temporal():
        return TimeGuess(None, "dates" if len(known) else "no values")
    numbers = known.cast(pl.Float64, strict=False) if known.dtype.is_numeric() or known.dtype in LETTERS else None
    if numbers is None:
        return TimeGuess(None, f"of the type {known.dtype}, which no time has")
    if not numbers.has_nulls():
        low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
        last = (datetime.now(UTC) + _AHEAD).timestamp()
        first = _SINCE.timestamp()
        units = [unit for unit, parts in PARTS_OF_SECOND.items() if first <= low / parts and high / parts <= last]
        if units:
            return TimeGuess(units[0], f"numbers that are times as {units[0]} since 1970")
        if numbers.n_unique() and high < _SINCE.timestamp() and not 19_000_101 <= low <= high <= 21_001_231:
            return TimeGuess(None, "numbers too small for seconds since 1970: perhaps a place in an order")
    texts = known.cast(pl.String)
    fitting = [form for form in _FORMATS if not _read(texts, form).has_nulls()]
    if not fitting:
        return TimeGuess(None, "as ISO 8601 has them, if at all")
    doubt = f", or as {fitting[1]}, which its first values do not decide" if len(fitting) > 1 else ""
    return TimeGuess(fitting[0], f"written as {fitting[0]}{doubt}")


def _read(texts: pl.Series, form: str) -> pl.Series:
    try:
        return texts.str.to_datetime(form, time_unit="us", strict=False)
    except pl.exceptions.PolarsError:
        return pl.Series([None], dtype=pl.Datetime("us"))


def suspicious_times(times: pl.Series, unit: str) -> list[str]:
    """What is odd of times, a sentence each.

    Args:
        times: whole numbers.
        unit: of them, as a data set's profile names it.
    """
    parts = PARTS_OF_SECOND.get(unit)
    found = []
    if times.n_unique() == 1:
        found.append("all times are the same")
    if parts is None:
        return found
    seconds = times / parts
    early = int((seconds < _SINCE.timestamp()).sum())
    late = int((seconds > (datetime.now(UTC) + _AHEAD).timestamp()).sum())
    if early:
        found.append(f"{early:,} times are before {_SINCE.year}")
    if late:
        found.append(f"{late:,} times are in the future")
    if (times % (86_400 * parts) == 0).all():
        found.append("all times are whole days: the order within a day is that of the file")
    return found
