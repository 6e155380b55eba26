"""Ids and texts that look as if they meant something else: the same id in another form, a word for nothing.

Knows how exporters spoil values. Knows nothing of files, filters or settings but their names.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from prorec_core.data.columns import Field, shown

_WORDS_FOR_NOTHING = (
    "nan", "none", "null", "n/a", "na", "#n/a", "<na>", "nat", "nil", "undefined", "(null)", "\\n", "-", "?",
)  # fmt: skip
_UNSEEN = r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
_SHOWN = 3
_MAY_CHANGE = r"[^!#-&(-~]|^\+|^-?0[0-9]|^-?[0-9]+\.|^-?[0-9.]+[eE]"
"""What `form_of` may make something else of: blanks, quotes, what is not ASCII; signs, zeros, fractions.

Most columns have no such id, and to look for one costs a fraction of what forms cost."""
_MAY_BE_TOLD = r"^\s*(?:[nN]|[uU][nN]|[tT][rR]|[fF][aA]|[-#<(\\?\[{])"
"""How words for nothing begin, and `true`, `false`, lists and objects."""


def form_of(ids: pl.Series) -> pl.Series:
    """Ids without what exporters add: blanks around, unseen characters, quotes; numbers are whole, accents composed.

    >>> form_of(pl.Series(["007", "7.0 ", "+7", "7e0", "'7'", "a7"])).to_list()
    ['7', '7', '7', '7', '7', 'a7']
    """
    may_change = ids.str.contains(_MAY_CHANGE)
    if not may_change.any():
        return ids
    places = may_change.arg_true()
    return ids.clone().scatter(places, _form_of(ids.gather(places)))


def _form_of(ids: pl.Series) -> pl.Series:
    bare = ids.str.normalize("NFKC").str.replace_all(_UNSEEN, "").str.strip_chars().str.strip_chars("'\"")
    bare = bare.str.strip_chars().str.replace(r"^\+?(-?)0*([0-9]+)(?:\.0*)?$", "${1}${2}")
    powers = bare.str.contains(r"^[+-]?[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]{1,2}$")
    if not powers.any():
        return bare
    number = pl.when(powers).then(bare).cast(pl.Float64, strict=False)
    whole = pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False).cast(pl.String)
    return pl.select(pl.coalesce(whole, pl.lit(bare))).to_series().rename(ids.name)


def in_other_forms(unknown: pl.Series, known: pl.Series) -> pl.DataFrame:
    """Which unknown ids are a known one in another form: columns `id` and `known`, a row an unknown id that is.

    Forms in which two known ids would be one decide nothing: there they tell items apart.

    Args:
        unknown: ids that are not among the known ones, each once.
        known: ids, each once.
    """
    found = pl.DataFrame(schema={"id": pl.String, "known": pl.String})
    for lower in (False, True):
        left = unknown.filter(~unknown.is_in(found["id"].implode()))
        forms = [form_of(ids) for ids in (left, known)]
        asked, given = (form.str.to_lowercase() for form in forms) if lower else forms
        once = pl.DataFrame({"form": given, "known": known}).filter(~given.is_duplicated())
        met = pl.DataFrame({"form": asked, "id": left}).join(once, on="form").select("id", "known")
        found = pl.concat([found, met])
    return found.sort("id")


def pair_shown(one: str, other: str) -> tuple[str, str]:
    """Two ids for a message; letter by letter where they look alike."""
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        return ascii(one), ascii(other)
    return shown(one), shown(other)


@dataclass(frozen=True)
class Oddities:
    """What is odd of some texts of a column, perhaps of a part of them: of all texts that have one form at least.

    Attributes:
        words: those that other programs write for nothing, and how many rows have each: columns value and rows, sorted.
        none: those that look like no ids, likewise.
        twins: how many differ from another in its form alone.
        pair: the first two of these that belong together; None where there are none.
    """

    words: pl.DataFrame
    none: pl.DataFrame
    twins: int = 0
    pair: tuple[str, str] | None = None


def oddities(values: pl.Series, rows: pl.Series, *, ids: bool) -> Oddities:
    """What is odd of a column's texts.

    Args:
        values: the different texts as they are taken, each once, sorted.
        rows: how many rows have each of them.
        ids: whether they are ids.
    """
    found = pl.DataFrame({"value": values, "rows": rows}).filter(values.str.contains(_MAY_BE_TOLD))
    low = found["value"].str.strip_chars().str.to_lowercase()
    words = found.filter(low.is_in(_WORDS_FOR_NOTHING))
    if not ids:
        return Oddities(words, found.clear())
    none = found.filter(low.str.contains(r"^(?:true|false|[\[{].*[\]}])$"))
    forms = form_of(values)
    if forms.equals(values):
        return Oddities(words, none)
    twins = forms.is_duplicated()
    if not twins.any():
        return Oddities(words, none)
    one, other = values.filter(forms == forms.filter(twins)[0])[:2]
    return Oddities(words, none, int(twins.sum()), (one, other))


def joined(parts: Sequence[Oddities]) -> Oddities:
    """What is odd of all texts, of parts that share none."""
    pairs = [part.pair for part in parts if part.pair is not None]
    words, none = (pl.concat(frames).sort("value") for frames in zip(*((p.words, p.none) for p in parts), strict=True))
    return Oddities(words, none, sum(part.twins for part in parts), min(pairs, default=None))


def remarks_on(odd: Oddities, field: Field) -> Iterator[str]:
    """What a user should know of a column's texts: words that other programs write for nothing, ids that are none."""
    it_has = f"{field.place}: column {shown(field.name)} has"
    if odd.words.height:
        named = ", ".join(f"'{word}'" for word in odd.words["value"])
        yield (
            f"{it_has} {_told(odd.words)}, taken as any other; if that means that there is none, add it to "
            f"data.missing: [{named}]"
        )
    if odd.none.height:
        yield f"{it_has} {_told(odd.none)}, which look like no ids and are taken as they are"
    if odd.pair is not None:
        one, other = pair_shown(*odd.pair)
        yield (
            f"{it_has} {odd.twins:,} ids that differ from another in blanks, leading zeros, fractions or "
            f"accents alone, as {one} and {other}; they are taken as different"
        )


def remarks_on_values(values: pl.Series, rows: pl.Series, field: Field, *, ids: bool) -> Iterator[str]:
    """As `remarks_on` of `oddities`."""
    return remarks_on(oddities(values, rows, ids=ids), field)


def _told(counts: pl.DataFrame) -> str:
    rows = counts.sort("rows", descending=True, maintain_order=True).rows()
    parts = [f"{shown(word)} in {count:,} {'row' if count == 1 else 'rows'}" for word, count in rows[:_SHOWN]]
    return ", ".join(parts) + (f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else "")
