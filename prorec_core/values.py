"""What is declared of values in raw tables: how times are written, what counts as missing, which ids are the same.

Knows the fields of `DataConfig` for that and their limits; knows nothing of how a value is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

AttributeKind = Literal["number", "boolean", "date", "texts", "text"]
"""Of a column of the items that is kept for rules; `texts`: each item has a list of them."""

AttributeOfKind = Annotated[
    str, Field(min_length=3, max_length=1020, pattern=r"^[^\x00]+=(?:number|boolean|date|texts|text)$")
]
"""A column and its kind, as `sku=text`."""

UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
"""What `data.timestamp_format` may say of numbers."""

_DIRECTIVE = re.compile(r"%(?:(?P<name>[-_0]?[A-Za-z+%]|\.?[369]?f|:{1,3}z|#z)|.?)")
_KNOWN = set("YCymbBhdeaAwuUWGgVjDxFvHkIlPpMSRTXrfzc+stn%")
_WHOLE = set("DxFvc+s")
"""Directives that stand for a whole date."""


def declared_kinds(declared: Iterable[str]) -> dict[str, AttributeKind]:
    """The kinds of columns, as `AttributeOfKind` says them."""
    found: dict[str, AttributeKind] = {}
    for each in declared:
        name, _, kind = each.rpartition("=")
        found[name] = cast("AttributeKind", kind)
    return found


def known_format(form: str) -> str:
    """The format itself; a fraction as Python writes it (`.%f`) as Polars has it (`%.f`).

    Raises:
        ValueError: nothing can be read by it.
    """
    if form in UNITS:
        return form
    form = form.replace(".%f", "%.f")
    names: set[str] = set()
    for match in _DIRECTIVE.finditer(form):
        name = (match["name"] or "")[-1:]
        if name == "Z":
            raise ValueError("%Z reads no zone: write the zone's name as it stands (UTC), or use %z for +00:00")
        if match["name"] == "f":
            raise ValueError(
                "%f alone counts nanoseconds: write %.f for a dot and a fraction, or %3f, %6f or %9f digits"
            )
        if name not in _KNOWN:
            raise ValueError(
                f"'{match[0]}' is no part of a format of time: known are %Y %m %d %H %M %S %.f %z and others"
            )
        names.add(name)
    day = names & set("de") and names & set("mbBh")
    if not (names & _WHOLE or (names & set("Yy") and (day or "j" in names)) or {"G", "V"} <= names):
        units = ", ".join(UNITS)
        raise ValueError(f"a format of time has year, month and day (%Y-%m-%d); the unit of numbers is one of {units}")
    if bool(names & set("HkIl")) != ("M" in names):
        raise ValueError("a format of time has both hour and minute, or neither")
    if names & set("Il") and not names & set("pP"):
        raise ValueError("%I counts to twelve: add %p, or use %H")
    return form


TimestampFormat = Annotated[
    Annotated[str, Field(min_length=1, max_length=100), AfterValidator(known_format)] | None,
    Field(
        description="How times are written: a format, as %m/%d/%Y %H:%M:%S, or of numbers since 1970 their unit "
        "(seconds, milliseconds, microseconds, nanoseconds); null: as ISO 8601 has them, and numbers are taken as "
        "given.",
    ),
]


def _as_text(word: object) -> object:
    if not isinstance(word, str):
        raise ValueError("each is a text: put it in quotes, as 'NULL' or '-1' (YAML takes NULL for nothing)")
    return word


Missing = Annotated[
    list[Annotated[str, BeforeValidator(_as_text), Field(max_length=100)]],
    Field(
        max_length=100,
        description="Texts that mean that an id, a time, a rating or a text is missing, as NULL; an empty text and a "
        "float's NaN always do.",
    ),
]
SimilarIds = Annotated[
    Literal["error", "same", "apart"],
    Field(
        description="Items of the interactions that the items file has in another form alone (7.0 and 7, 007 and 7, "
        "blanks, accents, case): stop with an error, take both for the same item, or for different ones."
    ),
]
