"""In which unit a column of times is, decided from what is known of its batches, and its batches in that unit.

Knows numbers and seconds since 1970; knows nothing of how times are written or of who read them. All batches decide
together, each is then brought into the unit by itself: it does not matter where they were read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import polars as pl

from prorec_core.data.columns import Field, first, shown
from prorec_core.errors import UserError

NANOSECONDS = 10**9
MICROSECONDS = 10**6
LAST_SECOND = 253_402_300_799
"""Of the year 9999, since 1970."""
PARTS_OF_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": MICROSECONDS, "nanoseconds": NANOSECONDS}
PLAUSIBLE_SECONDS = (631_152_000, 4_102_444_800)
"""Seconds of the years 1990 to 2099."""


@dataclass(frozen=True)
class Plausible:
    """Numbers that are times of the years 1990 to 2099 in some unit.

    Attributes:
        rows: how many.
        from_there: how many are these or larger.
        row: the first of them, in the column; None where there is none.
        value: what stands there.
    """

    rows: int
    from_there: int
    row: int | None
    value: Any


@dataclass(frozen=True)
class AboutTimes:
    """What of some rows decides what is meant by the whole column.

    Attributes:
        numbers: whether the column holds numbers; None: there are no rows.
        start: place of the first row in the column.
        first: what stands there in the first row, for messages.
        rows: how many rows there are.
        fractions: whether the numbers are of a type that has fractions; `parted`: whether one has a fraction.
        least, most: of the numbers or the seconds; None where there are no rows.
        plausible: of numbers, by unit.
        nanos: whether dates have parts of a second; `finer`: whether microseconds are too coarse for these.
    """

    numbers: bool | None
    start: int
    first: Any
    rows: int = 0
    fractions: bool = False
    parted: bool = False
    least: Any = None
    most: Any = None
    plausible: Mapping[str, Plausible] = field(default_factory=dict)
    nanos: bool = False
    finer: bool = False


def about_numbers(numbers: pl.Series, start: int, told: Any, unit: str | None) -> AboutTimes:
    """What is known of numbers (int64 or float64, no nulls) from a row on; `unit` is the one declared."""
    if not numbers.len():
        return AboutTimes(None, start, told)
    fractions, least, most = numbers.dtype.is_float(), numbers.min(), numbers.max()
    low, high = PLAUSIBLE_SECONDS
    plausible = {}
    for name, parts in PARTS_OF_SECOND.items() if unit is None else ():
        if most < low * parts:  # type: ignore[operator]
            break
        if least >= high * parts:  # type: ignore[operator]
            continue
        from_there = numbers >= low * parts
        within = from_there & (numbers < high * parts)
        row = first(within) if within.any() else None
        value = None if row is None else numbers[row]
        place = None if row is None else start + row
        plausible[name] = Plausible(int(within.sum()), int(from_there.sum()), place, value)
    parted = fractions and bool((numbers.floor() != numbers).any())
    return AboutTimes(True, start, told, numbers.len(), fractions, parted, least, most, plausible)


def about_dates(seconds: pl.Series, nanos: pl.Series | None, start: int, told: Any) -> AboutTimes:
    """What is known of seconds since 1970 and, where there are some, nanoseconds beyond, from a row on."""
    if not seconds.len():
        return AboutTimes(None, start, told)
    finer = nanos is not None and bool((nanos % 1000 != 0).any())
    return AboutTimes(False, start, told, seconds.len(), most=seconds.max(), nanos=nanos is not None, finer=finer)


@dataclass(frozen=True)
class Unit:
    """A column's unit.

    Attributes:
        name: seconds, milliseconds, …, or "as given".
        numbers: whether the column holds numbers.
        fractions: whether they are taken as fractions.
        factor: by which they are multiplied; of dates, ticks a second.
    """

    name: str
    numbers: bool
    fractions: bool = False
    factor: int = 1

    def of_numbers(self, numbers: pl.Series, field: Field) -> pl.Series:
        """Numbers of some rows, from the field's start on, in this unit, int64.

        Raises:
            UserError: one is too large for it (names the first row).
        """
        if not self.fractions:
            return numbers
        found = numbers.cast(pl.Float64)
        times = ((found * self.factor).round() if self.factor > 1 else found).cast(pl.Int64, strict=False)
        field.refuse(times.is_null(), "holds too large a time", found)
        return times

    def of_dates(self, seconds: pl.Series, nanos: pl.Series | None) -> pl.Series:
        """Seconds since 1970, and nanoseconds beyond, in this unit, int64."""
        if self.factor == 1:
            return seconds
        whole = seconds * self.factor
        return whole if nanos is None else whole + nanos // (NANOSECONDS // self.factor)


def decided(seen: Sequence[tuple[Field, AboutTimes]], unit: str | None) -> Unit:
    """A column's unit, given what is known of all its batches in their order, each with the field for messages on it.

    Args:
        seen: see above; rows are counted as the field counts them.
        unit: of numbers, where it was declared.

    Raises:
        UserError: some batches hold numbers and some do not, or plausible seconds and plausible milliseconds.
    """
    there = [(field, about) for field, about in seen if about.rows]
    kinds = {about.numbers for _, about in there}
    if len(kinds) > 1:
        field, odd = next((field, about) for field, about in there if not about.numbers)
        refuse_beside_numbers(field.at(odd.start), odd.first)
    if True in kinds:
        return _of_numbers(there, unit)
    if not any(about.nanos for _, about in there):
        return Unit("seconds", False)
    if not any(about.finer for _, about in there) or max(about.most for _, about in there) >= 2**63 // NANOSECONDS:
        return Unit("microseconds", False, factor=MICROSECONDS)
    return Unit("nanoseconds", False, factor=NANOSECONDS)


def refuse_beside_numbers(field: Field, value: Any) -> NoReturn:
    """Refuse a value that is no number in a column of numbers, at the field's start.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"column '{field.name}' holds what is no time in {field.row(0)}: {shown(value)}",
        place=field.place,
        cure="Other rows hold numbers: correct the value or drop the row",
    )


def _of_numbers(seen: Sequence[tuple[Field, AboutTimes]], unit: str | None) -> Unit:
    """Whole numbers stay as they are, others get a unit in which they are whole."""
    # Whole numbers in one batch and fractions in the next are fractions all.
    fractions = any(about.fractions for _, about in seen)
    if unit is None:
        _refuse_two_units(seen, fractions=fractions)
    if not fractions:
        return Unit(unit or "as given", True)
    whole = not any(about.parted for _, about in seen)
    of, largest = max(((each, about.most) for each, about in seen if about.rows), key=lambda found: found[1])
    if unit is None and largest > LAST_SECOND:
        if whole:
            # A column of whole numbers has fractions where one value was missing once.
            return Unit("as given", True, fractions)
        raise UserError(
            f"column '{of.name}' holds fractions of a unit that is not declared, as {largest:,.1f}",
            place=of.place,
            cure="Say in data.timestamp_format which unit the numbers have, as 'milliseconds'",
        )
    unit = unit or "seconds"
    if whole:
        return Unit(unit, True, fractions)
    finer = "microseconds" if unit in ("seconds", "milliseconds") else "nanoseconds"
    return Unit(finer, True, fractions, PARTS_OF_SECOND[finer] // PARTS_OF_SECOND[unit])


def _refuse_two_units(seen: Sequence[tuple[Field, AboutTimes]], *, fractions: bool) -> None:
    """Refuse plausible seconds since 1970 beside plausible milliseconds, and so on.

    Numbers that merely run from small to large are none of these: they fill what lies between.
    """
    rows: dict[str, int] = {}
    firsts: dict[str, tuple[Field, Plausible]] = {}
    for name in PARTS_OF_SECOND:
        of_unit = [(field, about.plausible[name]) for field, about in seen if name in about.plausible]
        rows[name] = sum(each.rows for _, each in of_unit)
        if rows[name]:
            firsts[name] = next((field, each) for field, each in of_unit if each.rows)
    if len(firsts) < 2:
        return
    smallest = next(iter(firsts))
    if sum(rows.values()) < 0.95 * sum(_from_there(about, smallest) for _, about in seen):
        return
    told = " and ".join(
        f"in {unit} ({field.row(int(each.row or 0))}: {shown(float(each.value) if fractions else each.value)})"
        for unit, (field, each) in firsts.items()
    )
    field = seen[0][0]
    raise UserError(
        f"column '{field.name}' holds times {told}",
        place=field.place,
        cure="Write all of them in one unit; if they are in one, say which in data.timestamp_format, as 'seconds'",
    )


def _from_there(about: AboutTimes, unit: str) -> int:
    """How many numbers are plausible in a unit, or larger."""
    if unit in about.plausible:
        return about.plausible[unit].from_there
    return about.rows if about.least >= PLAUSIBLE_SECONDS[0] * PARTS_OF_SECOND[unit] else 0
