"""A file or folder looked at: what is in it, which experiment it could be, and what that would make of it.

Knows sources, guesses and `preprocess`. Knows nothing of who shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from prorec_core.config_data import DataConfig
from prorec_core.data.columns import shown
from prorec_core.data.dataset import Dataset
from prorec_core.data.files import SPLITS, STATE, in_folder
from prorec_core.data.formats import READERS, RULES, TABLES, is_file, open_file, table_of
from prorec_core.data.layouts import LAYOUTS
from prorec_core.data.opening import bare, format_of, stem_of
from prorec_core.data.peek.roles import Roles, TimeGuess, guess_times, roles_of, suspicious_times
from prorec_core.data.published import find_layouts
from prorec_core.data.sources import open_source
from prorec_core.data.stage import preprocess
from prorec_core.data.tables import RawTable, reading
from prorec_core.data.times import odd_times, shown_time
from prorec_core.errors import UserError
from prorec_core.paths import path_of
from prorec_core.progress import Report, silent

_FIRST = 2000
_LEFT = "?"
"""Stands for a name that a user has to fill in."""
_NO_CORE = {"min_user_interactions": 3, "min_item_interactions": 1}


@dataclass
class Column:
    """A column as it is seen: its type and a value in words, and what it is taken for."""

    name: str
    type: str
    example: str
    guess: str = ""


@dataclass
class TableSeen:
    """A table as it is seen."""

    name: str
    guess: str
    columns: list[Column]
    rows: int


@dataclass
class Seen:
    """What was found.

    Attributes:
        place: what was looked at.
        layout: what the files are taken for, in words.
        tables: each.
        notes: what a user should know, a sentence each.
        values: the experiment, as YAML would have it; {} where there is none.
        profile: what `preprocess` would leave, where it would come to an end.
        problem: why it would not.
    """

    place: str
    layout: str
    tables: list[TableSeen]
    notes: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def look(given: str, report: Report = silent) -> Seen:
    """Look at a file, or at a folder as at an experiment's data.

    Raises:
        UserError: there is nothing of this name, or a file that cannot be read at all.
    """
    path = path_of(given)
    with reading(str(path)):
        if path.is_dir() and not is_file(path / STATE):
            return _folder(path, report)
    if path.is_dir():
        table = in_folder(path, TABLES).open(path, RULES)
    elif is_file(path):
        table = open_file(path, RULES) if format_of(path) in READERS else table_of(path)
    else:
        raise UserError("there is no such file or folder", place=str(path), cure="Check the name")
    roles = roles_of(table.columns())
    seen = _table(path.name, table, roles)
    _mark(seen, roles)
    notes = [f"one file alone makes no experiment: look at its folder, prorec data peek {path.parent}"]
    return Seen(str(path), "one table", [seen], [*_time_notes(table, roles), *notes])


def _folder(folder: Path, report: Report) -> Seen:
    data, layout = _guess(folder)
    left = [name for name, value in (data or {}).items() if value in (_LEFT, [_LEFT])]
    if data is None or left:
        tables, notes = _tables(folder)
        found = Seen(str(folder), layout, [], notes)
        for name, table in tables.items():
            try:
                roles = roles_of(table.columns())
                found.tables.append(_table(name, table, roles))
                _mark(found.tables[-1], roles)
            except UserError as error:
                found.notes.append(_passed_over(error))
        if data is not None:
            found.values = {"name": _slug(folder.name), "data": data}
            found.problem = (
                f"no column has a name that is known for {', '.join(left)}: write in place of {_LEFT} what it is "
                "called, and null for timestamp_column where rows are in their order"
            )
        return found
    config = DataConfig(**data)
    source = open_source(config)
    logged = Roles(config.user_column, config.item_column, config.timestamp_column, None, ())
    stocked = Roles(None, config.item_column, None, None, tuple(config.text_columns))
    parts = (("interactions", source.interactions(), logged), ("items", source.items(), stocked))
    found = Seen(str(folder), layout, [], _tables(folder)[1] if data["source"] == "tables" else [])
    for kind, table, roles in parts:
        seen = _table(Path(table.place).name, table, roles_of(table.columns()), kind)
        _mark(seen, roles)
        found.tables.append(seen)
    if config.timestamp_column is not None:
        times = _first(parts[0][1], [config.timestamp_column])[config.timestamp_column]
        guess = TimeGuess(None, times) if isinstance(times, str) else guess_times(times)
        found.notes.append(f"the column '{config.timestamp_column}' is taken for times: {guess.words} (a guess)")
        if guess.format is not None:
            data["timestamp_format"] = guess.format
    else:
        found.notes.append("no column is taken for times: rows are taken to be in their order (a guess)")
    found.values = {"name": _slug(folder.name), "data": data}
    try:
        found.profile = _measure(DataConfig(**data), found, report)
    except UserError as error:
        found.problem = str(error)
    return found


def _measure(config: DataConfig, found: Seen, report: Report) -> dict[str, Any]:
    """What the filters would take, and what is odd of times and repetitions before them."""
    dataset = preprocess(config, report)
    profile = dataset.profile
    # What is odd of times is told below, of all that was there before the filters.
    odd = odd_times(dataset.timestamps, profile["timestamp_unit"])
    found.notes += [text for text in profile["warnings"] if text not in odd]
    unknown = profile["policies"]["unknown_items"]
    found.notes.append(
        f"{unknown['items']:,} items of the interactions ({unknown['interactions']:,} rows) are not in the items file"
    )
    every = preprocess(config.model_copy(update={**_NO_CORE, "duplicates": "keep"})) if _filtered(profile) else dataset
    times = pl.Series(every.timestamps)
    if config.timestamp_column is not None and len(times):
        unit = profile["timestamp_unit"]
        ends = [shown_time(int(each), unit) for each in (times.min(), times.max())]  # type: ignore[arg-type]
        found.notes.append(f"times run from {ends[0]} to {ends[1]} ({unit})")
        found.notes += suspicious_times(times, unit)
        found.notes.append(_repeated(every))
    return profile


def _filtered(profile: Mapping[str, Any]) -> bool:
    return any(step["before"] != step["after"] for step in profile["filters"])


def _repeated(dataset: Dataset) -> str:
    users = pl.Series(dataset.sequences.offsets).diff().drop_nulls()
    frame = pl.DataFrame(
        {
            "user": pl.int_range(len(users), eager=True).repeat_by(users).explode(),
            "item": pl.Series(dataset.sequences.items),
            "time": pl.Series(dataset.timestamps),
        }
    )
    same = frame.height - frame.n_unique()
    pairs = frame.height - frame.n_unique(["user", "item"])
    return (
        f"{same:,} of {frame.height:,} interactions repeat another of equal user, item and time, and {pairs:,} one of "
        "equal user and item (among users with at least three)"
    )


def _guess(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The section `data` that the folder could be read with, and in words what it is taken for."""
    base: dict[str, Any] = {"path": str(folder)}
    names = sorted(path.name for path in folder.iterdir())
    if any(".inter.json" in name for name in names) and any(".item.json" in name for name in names):
        data = {"source": "letter", **base}
        return {**data, **_texts(data)}, "LETTER's JSON files"
    hits = [(source, *hit) for source, layouts in LAYOUTS.items() for hit in find_layouts(folder, layouts)]
    if len(hits) == 1:
        source, layout, *_ = hits[0]
        data = {"source": source, **base}
        return {**data, **_texts(data)}, f"{layout.name}, by the names of the files"
    if hits:
        told = "; ".join(f"{layout.name}: {log.name} and {stock.name}" for _, layout, log, stock in hits)
        return None, f"several published data sets ({told}): name the files in data.interactions_file and items_file"
    formats = [bare(format_of(Path(name))) for name in names]
    if formats.count(".inter") == 1 and formats.count(".item") == 1:
        data = {"source": "recbole", **base}
        return {**data, **_of_tables(open_source(DataConfig(**data)))}, "RecBole's atomic files"
    return _generic(folder, base)


def _of_tables(source: Any) -> dict[str, Any]:
    log, stock = roles_of(source.interactions().columns()), roles_of(source.items().columns())
    return _columns(log, stock)


def _columns(log: Roles, stock: Roles) -> dict[str, Any]:
    found: dict[str, Any] = {"user_column": log.user, "item_column": log.item, "timestamp_column": log.time}
    return {**found, "text_columns": list(stock.texts)} if stock.texts else found


def _to_fill_in(log: Roles, stock: Roles) -> dict[str, Any]:
    """What columns are called as far as that is known, of two tables of which one at least is not."""
    return {
        "user_column": log.user or _LEFT,
        "item_column": log.item or stock.item or _LEFT,
        "timestamp_column": log.time or _LEFT,
        "text_columns": list(stock.texts) or [_LEFT],
    }


def _texts(data: dict[str, Any]) -> dict[str, Any]:
    """Which columns make up the text, where the names of all others are known."""
    there = open_source(DataConfig(**data)).items().columns()
    texts = [name for name in ("title", "categories", "brand", "description") if name in there]
    return {"text_columns": texts[:2] or there[1:2]}


def _generic(folder: Path, base: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    tables, _ = _tables(folder)
    if not tables:
        return None, "nothing that is read: no file of a known format"
    roles = {name: roles_of(table.columns()) for name, table in tables.items()}
    by_kind: dict[str, list[str]] = {"interactions": [], "items": [], "": []}
    for name, each in roles.items():
        by_kind[each.kind].append(name)
    logs, stocks = by_kind["interactions"], by_kind["items"]
    by_name = {stem_of(Path(name)): name for name in tables}
    # The files that a run reads by itself, whatever their columns are called.
    named = (len(logs) != 1 or len(stocks) != 1) and {"interactions", "items"} <= by_name.keys()
    if named:
        logs, stocks = [by_name["interactions"]], [by_name["items"]]
    if len(logs) != 1 or len(stocks) != 1:
        told = f"{len(logs)} that could be interactions, and {len(stocks)} that could be items"
        return None, f"tables, {told}: there must be one of each (name them in data.interactions_file and items_file)"
    log, stock = roles[logs[0]], roles[stocks[0]]
    if log.item and stock.item and log.item != stock.item:
        names = f"'{log.item}' in {logs[0]} and '{stock.item}' in {stocks[0]}"
        return None, f"an interactions and an items table, whose ids of items are called {names}: give both one name"
    if named:
        return {"source": "tables", **base, **_to_fill_in(log, stock)}, "tables, by the names of the files"
    files = {"interactions_file": logs[0], "items_file": stocks[0]}
    return {"source": "tables", **base, **files, **_columns(log, stock)}, "tables, by the names of their columns"


def _tables(folder: Path) -> tuple[dict[str, RawTable], list[str]]:
    """The tables of a folder by name, its files of known formats and folders of such; and which cannot be read."""
    found, notes = {}, []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")) or path.name in {SPLITS, "dataset_info.json"}:
            continue
        if path.is_dir():
            try:
                found[path.name] = in_folder(path, TABLES).open(folder, RULES)
            except UserError:
                continue
        elif format_of(path) in TABLES and stem_of(path):
            table = open_file(path, RULES)
            try:
                table.columns()
            except UserError as error:
                notes.append(_passed_over(error))
                continue
            found[path.name] = table
    return found, notes


def _passed_over(error: UserError) -> str:
    return f"passed over: {error}"


def _table(name: str, table: RawTable, roles: Roles, kind: str = "") -> TableSeen:
    names = table.columns()
    once = [each for each in names if names.count(each) == 1]
    first = _first(table, once)
    columns = []
    for each in names:
        if each not in once:
            columns.append(Column(each, "?", "", "a name that stands there twice: nothing of it is read"))
            continue
        values = first[each]
        if isinstance(values, str):
            columns.append(Column(each, "?", "", values))
            continue
        known = values.drop_nulls()
        columns.append(Column(each, str(values.dtype), _example(known) if len(known) else "nothing in its first rows"))
    return TableSeen(name, kind or roles.kind, columns, table.rows())


def _first(table: RawTable, names: Sequence[str]) -> dict[str, pl.Series | str]:
    """The first values of some columns; where a column holds what is no value of a table, why."""
    try:
        return dict(_batch(table, names).to_dict())
    except UserError as error:
        if len(names) == 1:
            return {names[0]: error.problem}
    return {name: _first(table, [name])[name] for name in names}


def _batch(table: RawTable, names: Sequence[str]) -> pl.DataFrame:
    for batch in table.batches(*names):
        if batch.height:
            return batch.head(_FIRST)
    return pl.DataFrame(schema=dict.fromkeys(names, pl.Null))


def _example(known: pl.Series) -> str:
    value = known[0]
    return shown(value.to_list() if isinstance(value, pl.Series) else value)


def _mark(seen: TableSeen, roles: Roles) -> None:
    told = {roles.item: "the item's id", roles.user: "the user's id", roles.time: "the time"}
    told |= dict.fromkeys(roles.texts, "text")
    for column in seen.columns:
        column.guess = column.guess or told.get(column.name, "")


def _time_notes(table: RawTable, roles: Roles) -> list[str]:
    if roles.time is None:
        return []
    values = _first(table, [roles.time])[roles.time]
    words = values if isinstance(values, str) else guess_times(values).words
    return [f"the column '{roles.time}' is taken for times: {words} (a guess)"]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:60] or "data"
