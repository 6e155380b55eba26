"""The two raw tables read and understood: the log as numbers, the catalogue as texts, and ids that meet.

Knows which columns are read and what they mean. Knows nothing of formats of files, or of what is kept of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import polars as pl

from prorec_core.config_data import DataConfig
from prorec_core.data.attributes import as_attribute
from prorec_core.data.columns import Field, as_ids, as_ratings, first, need_columns, shown, value_at, without_missing
from prorec_core.data.forms import Oddities, in_other_forms, oddities, pair_shown, remarks_on, remarks_on_values
from prorec_core.data.ids import Distinct, IdColumn, as_places, sorted_ids
from prorec_core.data.in_turn import in_turn
from prorec_core.data.sequences import IntArray
from prorec_core.data.tables import Place, RawTable
from prorec_core.data.texts import as_text
from prorec_core.data.times import Times
from prorec_core.errors import UserError
from prorec_core.values import declared_kinds

NO_CLOCK = "row of the file"
"""The unit of times where rows are in order of time and have none."""


@dataclass(frozen=True)
class Log:
    """What is known of the interactions beside their rows.

    Attributes:
        ids: of "item", and of "user" where all rows are in one place, each once and sorted.
        unit: of the timestamps.
        place: where they come from.
        remarks: what a user should know of them, a sentence each.
        same_ids: `items` and `interactions` whose item the catalogue has in another form; {} where there are none.
    """

    ids: Mapping[str, pl.Series]
    unit: str
    place: str
    remarks: list[str]
    same_ids: Mapping[str, int]


@dataclass(frozen=True)
class Catalogue:
    """The items as strings: item_id, title, text, the latter two "" where there is none; beside them in the same order
    the columns that are kept for rules; place and remarks as above."""

    items: pl.DataFrame
    attributes: pl.DataFrame
    place: str
    remarks: list[str]


def read_tables(config: DataConfig, interactions: RawTable, items: RawTable) -> tuple[pl.DataFrame, Log, Catalogue]:
    """Read the columns that the configuration names, of all rows.

    Returns:
        The interactions in the order of the file: user and item (int32, places in `Log.ids`), timestamp (int64), rating
        (float64) where there is one to be read; what is known of them; the items. Interactions are read batch by batch:
        in memory are these numbers, each id once, and the texts of a few batches.

    Raises:
        UserError: a column is not there; a value cannot be used; ids of both files do not meet.
    """
    columns, catalogue, beside = begun(config, interactions, items)
    rows, log = _log(config, interactions, columns, catalogue, beside)
    return rows, log, catalogue


def begun(config: DataConfig, interactions: RawTable, items: RawTable) -> tuple[list[str], Catalogue, str]:
    """The columns of the interactions to be read, the items, and how ids are written there, for messages.

    Raises:
        UserError: a column of either is not there, or a value of the items cannot be used.
    """
    columns, stocked = _logged(config, interactions), _stocked(config, items)
    ids = config.item_column
    catalogue = _catalogue(config, stocked, items.place, _written(_first_ids(interactions, ids), interactions.place))
    return columns, catalogue, _written(stocked[ids], items.place)


def read_items(config: DataConfig, table: RawTable) -> Catalogue:
    """The items of a table by themselves, as `read_tables` reads them.

    Raises:
        UserError: a column is not there, a value cannot be used, or an item stands there more than once.
    """
    return _catalogue(config, _stocked(config, table), table.place, "")


def _logged(config: DataConfig, table: RawTable) -> list[str]:
    wanted = {config.user_column: "data.user_column", config.item_column: "data.item_column"}
    if config.timestamp_column is not None:
        wanted[config.timestamp_column] = "data.timestamp_column"
    if config.rating_column is not None:
        wanted[config.rating_column] = "data.rating_column"
    need_columns(table, wanted)
    return list(wanted)


def _first_ids(table: RawTable, column: str) -> pl.Series:
    """The column's values in the first batch that has rows."""
    batches = (batch[column] for batch in table.batches(column))
    return next((ids for ids in batches if ids.len()), pl.Series([], dtype=pl.Null))


def _stocked(config: DataConfig, table: RawTable) -> pl.DataFrame:
    title = _title(config)
    need_columns(
        table,
        {config.item_column: "data.item_column"}
        | dict.fromkeys(config.text_columns, "data.text_columns")
        | ({title: "data.title_column"} if config.title_column else {})
        | dict.fromkeys(config.attribute_columns, "data.attribute_columns"),
    )
    wanted = [config.item_column, *config.text_columns, title, *config.attribute_columns]
    return table.collect(*dict.fromkeys(wanted))


def _title(config: DataConfig) -> str:
    return config.title_column or config.text_columns[0]


def _written(ids: pl.Series, place: str) -> str:
    """How ids are written in a file, for messages on the other one."""
    there = ids.is_not_null()
    return f"{_name(place)} has {shown(value_at(ids, first(there)))}" if there.any() else ""


def _name(place: str) -> str:
    return PurePath(place).name


def rows_of_items(
    config: DataConfig, raw: pl.DataFrame, place: str, beside: str = ""
) -> tuple[pl.DataFrame, pl.Series, Place, list[str]]:
    """The rows of an items file that count, a row an item.

    Args:
        config: says what becomes of rows without an id, and of an item's further rows.
        raw: the file's columns, that of the ids among them.
        place: of the file, for messages.
        beside: how the ids are written that these should meet, for messages.

    Returns:
        These rows, their ids, where they stand, and what was left out, in words.

    Raises:
        UserError: an id that is missing or stands there twice, where that is not allowed.
    """
    remarks, at = [], Place.of(place)
    if config.items_without_id == "drop":
        known = without_missing(raw[config.item_column], config.missing).is_not_null()
        if not known.all():
            gone = f"{int((~known).sum()):,} rows have no id and are left out"
            remarks.append(f"{place}: {gone} (data.items_without_id=drop)")
            raw, at = raw.filter(known), at.of_rows(known.arg_true())
    ids = as_ids(raw[config.item_column], at, config.missing, beside)
    first_rows = ids.is_first_distinct()
    if not first_rows.all():
        twice, over = shown(ids.filter(~first_rows)[0]), int((~first_rows).sum())
        if config.repeated_items == "error":
            raise UserError(
                f"the item {twice} stands there more than once ({over:,} rows over)",
                place=place,
                cure="Keep one row an item, or set data.repeated_items=first to take the first one",
            )
        remarks.append(
            f"{place}: {over:,} rows are of items that stand further up, as {twice}; the first row of each is taken "
            "(data.repeated_items=first)"
        )
        raw, ids, at = raw.filter(first_rows), ids.filter(first_rows), at.of_rows(first_rows.arg_true())
    return raw, ids, at, remarks


def _catalogue(config: DataConfig, raw: pl.DataFrame, place: str, beside: str) -> Catalogue:
    raw, ids, place, remarks = rows_of_items(config, raw, place, beside)
    title = _title(config)
    names = list(dict.fromkeys([*config.text_columns, title]))
    parts = [as_text(raw[name], place, config.missing) for name in names]
    remarks += _remarks(ids, Field(config.item_column, place), ids=True)
    for name, part in zip(names, parts, strict=True):
        remarks += _remarks(part, Field(name, place), ids=False)
    # By number: Polars takes a name such as "^t.*$" for a pattern.
    there = pl.DataFrame({str(number): part.replace("", None) for number, part in enumerate(parts)})
    chosen = [str(names.index(name)) for name in config.text_columns]
    texts = there.select(pl.concat_str(chosen, separator=config.text_separator, ignore_nulls=True)).to_series()
    items = {"item_id": ids, "title": parts[names.index(title)], "text": texts.fill_null("")}
    kinds, missing = declared_kinds(config.attribute_kinds), config.missing
    kept = [as_attribute(raw[name], place, missing, kinds.get(name)) for name in config.attribute_columns]
    return Catalogue(pl.DataFrame(items), pl.DataFrame(kept), place, remarks)


def _remarks(column: pl.Series, field: Field, *, ids: bool) -> list[str]:
    counts = column.value_counts(name="rows").sort(column.name)
    return list(remarks_on_values(counts[column.name], counts["rows"], field, ids=ids))


def _log(
    config: DataConfig, table: RawTable, columns: list[str], catalogue: Catalogue, beside: str
) -> tuple[pl.DataFrame, Log]:
    """Reads what the catalogue's ids have to meet."""
    place, missing, rating = table.place, config.missing, config.rating_column
    names = {"user": config.user_column, "item": config.item_column}
    dictionaries = {
        "user": IdColumn(Field(names["user"], place), missing),
        "item": IdColumn(Field(names["item"], place), missing, beside),
    }
    times = Times(Field(config.timestamp_column or "", place), config.timestamp_format, missing)

    def read(batch: tuple[int, pl.DataFrame]) -> dict[str, Any]:
        start, frame = batch
        found: dict[str, Any] = {side: dictionaries[side].numbers(frame[names[side]], start) for side in names}
        if config.timestamp_column is not None:
            column, found["negative"] = from_zero(frame[config.timestamp_column], config)
            found["timestamp"] = times.read(column, start)
        if rating is not None:
            found["rating"] = as_ratings(frame[rating], place, missing, start)
            found["unrated"] = found["rating"].null_count()
        return found

    parts: dict[str, list[Any]] = {}
    for found in in_turn(read, with_starts(table.batches(*columns))):
        for name, part in found.items():
            parts.setdefault(name, []).append(part)

    numbers: dict[str, Any] = {side: np.concatenate(parts.pop(side)) for side in names}
    distinct = {side: dictionaries[side].distinct(numbers[side]) for side in names}
    if config.timestamp_column is not None:
        column, unit = times.join(parts.pop("timestamp"))
    else:
        column, unit = pl.int_range(len(numbers["user"]), dtype=pl.Int64, eager=True), NO_CLOCK
    items, same = met(distinct["item"], catalogue, config, place)
    ids: dict[str, pl.Series] = {}
    odd: dict[str, Oddities] = {}
    for side, called in (("user", distinct["user"].ids), ("item", items)):
        ids[side], table_ = sorted_ids(distinct[side], called)
        odd[side] = oddities(ids[side], rows_of(distinct[side], table_), ids=True)
        numbers[side] = as_places(numbers[side], table_)
    rows = pl.DataFrame({**numbers, "timestamp": column})
    if rating is not None:
        rows = rows.with_columns(rating=pl.concat(parts.pop("rating")))
    negative, unrated = (sum(parts.pop(name, [])) for name in ("negative", "unrated"))
    return rows, Log(ids, unit, place, remarks_on_log(config, place, negative, unrated, odd), same)


def rows_of(distinct: Distinct, table: IntArray) -> pl.Series:
    """How many rows have each of the sorted ids, given the table of `sorted_ids`."""
    return pl.Series(np.bincount(table[distinct.numbers], distinct.rows).astype(np.int64))


def remarks_on_log(
    config: DataConfig, place: str, negative: int, unrated: int, odd: Mapping[str, Oddities]
) -> list[str]:
    """What a user should know of the interactions: how many times are negative, how many ratings are missing, and what
    is odd of either's ids.
    """
    found = []
    if negative:
        found.append(f"{place}: {negative:,} times are negative and taken for 0 (data.negative_times=zero)")
    if unrated:
        found.append(
            f"{place}: {unrated:,} interactions have no rating in column '{config.rating_column}' and are left out "
            "with those below data.min_rating"
        )
    for side, name in (("user", config.user_column), ("item", config.item_column)):
        found += remarks_on(odd[side], Field(name, place))
    return found


def from_zero(column: pl.Series, config: DataConfig) -> tuple[pl.Series, int]:
    """The times, negative numbers of them 0 where the configuration says so, and how many those are."""
    if config.negative_times == "error" or not (column.dtype.is_numeric() or column.dtype == pl.String):
        return column, 0
    numbers = column.dtype.is_numeric()
    negative = (column < 0) if numbers else column.str.contains(r"^\s*-[0-9.]+\s*$")
    negative = negative.fill_null(False) & without_missing(column, config.missing).is_not_null()
    return (column.set(negative, 0 if numbers else "0"), int(negative.sum())) if negative.any() else (column, 0)


def with_starts(batches: Iterable[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
    """Each batch that has rows, or one that has none where no other is, with the number of rows above it."""
    start, empty = 0, pl.DataFrame()
    for batch in batches:
        if batch.height:
            yield start, batch
        start, empty = start + batch.height, batch
    if not start:
        yield start, empty


def met(items: Distinct, catalogue: Catalogue, config: DataConfig, place: str) -> tuple[pl.Series, Mapping[str, int]]:
    """The log's different items by the ids of the catalogue, and how many it has in another form.

    Raises:
        UserError: it has some in another form, and nobody said what that means; or it has none at all.
    """
    known, distinct = catalogue.items["item_id"], items.ids
    unknown = distinct.filter(~distinct.is_in(known.implode()))
    if unknown.is_empty():
        return distinct, {}
    pairs = in_other_forms(unknown, known)
    if pairs.height and config.similar_ids != "apart":
        rows = int(items.rows[distinct.is_in(pairs["id"].implode()).to_numpy()].sum())
        if config.similar_ids == "same":
            return distinct.replace(pairs["id"], pairs["known"]), {"items": pairs.height, "interactions": rows}
        one, other = pair_shown(*pairs.row(0))
        raise UserError(
            f"{pairs.height:,} of {distinct.len():,} item ids ({rows:,} of {items.rows.sum():,} interactions) are in "
            f"{_name(catalogue.place)} in another form alone: {one} here is {other} there",
            place=place,
            cure="Write ids alike in both files, or set data.similar_ids=same to take them for the same items, or "
            "=apart for different ones",
        )
    if unknown.len() == distinct.len() and config.unknown_items != "keep":
        there = f"that has {shown(known[0])}" if known.len() else "that has none"
        raise UserError(
            f"no item of the interactions is in {_name(catalogue.place)}: they are with {shown(unknown.min())}, "
            f"{there}",
            place=place,
            cure="Check that data.item_column is the same id in both files",
        )
    return distinct, {}
