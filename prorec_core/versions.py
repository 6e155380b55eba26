"""What earlier versions of this software wrote, read as this one would have written it: fields added or renamed since.

Knows the dotted names of fields and when they came to be; knows nothing of what they mean or of where they are kept.

Whatever is kept for longer than a run and holds fields by their names (`config.json` of an artifact or a model,
`experiment.json` of a run, the settings of a study) says its `version`. What says none is of version 0. A stored record
is complete: it is brought up to date step by step, and a field that it lacks after that is an error, never a default.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from prorec_core.by_data import STORED
from prorec_core.config_changes import CHANGES
from prorec_core.errors import UserError
from prorec_core.sections import MANY, Added, Change, Renamed

KEY = "version"
"""The name under which a record says its version."""
SectionT = TypeVar("SectionT", bound=BaseModel)


def _recommended_before_rankers(then: Mapping[str, Any]) -> str:
    return "generative" if then.get("fusion_weight") is None else "fused"


_TO_THE_FIRST: tuple[Change, ...] = (
    Added("collaborative.loss", "cross_entropy"),
    Added("align.graph", 0.0),
    Added("generator.dense", "head"),
    Added("generator.distill.share", 1.0),
    Added("generator.ranker", False),
    Added("generator.ranker_weights", None),
    Added("data.cold_items", 0.0),
    Added("data.cold_seed", 0),
    Added("evaluate.cold_bonus", 0.0),
    Added("train_on_validation", False),
    Added("data.timestamp_format", None),
    Added("data.missing", [""]),
    Added("data.similar_ids", "apart"),
    Added("data.quotes", True),
    Added("data.multiline", True),
    Added("text.encoder", "sentences"),
    # Validation asked everybody, and every neighbour counted.
    Added("collaborative.validation_users", MANY),
    Added("align.validation_users", MANY),
    Added("align.graph_neighbours", MANY),
    Renamed("data.cold_items", "data.new_items"),
    Renamed("data.cold_seed", "data.new_items_seed"),
    Renamed("evaluate.cold_bonus", "evaluate.new_item_bonus"),
    Added("trained_generator.stage_one", None),
    Added("trained_generator.ranker", None),
    Added("trained_generator.recommended", _recommended_before_rankers),
    Added("trained_generator.beams", 50),
)
"""`trained_generator` is what a generator says beside its configuration."""

STEPS = (_TO_THE_FIRST, *CHANGES)
"""What changed from each version to the next, in order."""

FILES: Mapping[str, str] = {"new_items.parquet": "cold_items.parquet", "new_tests.parquet": "cold_tests.parquet"}
"""Files of artifacts that got another name: the name now, and the one before."""

VERSION = len(STEPS)
"""The version of what is written now."""


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it is written: with its version."""
    return {KEY: VERSION, **values}


def read(path: Path) -> dict[str, Any]:
    """The record in a JSON file, up to date.

    Raises:
        UserError: a newer version of this software wrote it, or it is not there, as in what early versions made.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        problem = "the file is not there; early versions of prorec kept none"
        raise UserError(problem, place=str(path), cure="Make its folder again: train anew once") from error
    return up_to_date(parsed(content, str(path)), str(path))


def parsed(text: str | bytes, place: str) -> dict[str, Any]:
    """The record in a text, as it is.

    Raises:
        UserError: it holds none.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"this is no JSON ({error})", place=place, cure="Make it again") from error
    if not isinstance(found, dict):
        raise UserError("this holds no fields", place=place, cure="Make it again")
    return found


def up_to_date(record: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A record of sections as this version would have written it, without its version.

    Args:
        record: what was stored; left as it is.
        place: where, for the error.

    Raises:
        UserError: a newer version of this software wrote it.
    """
    values = deepcopy(dict(record))
    for change in _since(values.pop(KEY, 0), place):
        match change:
            case Added(field, before):
                section = _section(values, field)
                if section is not None and _name(field) not in section:
                    section[_name(field)] = before(section) if callable(before) else deepcopy(before)
            case Renamed():
                _rename(values, change)
    return values


def flat_up_to_date(record: Mapping[str, Any], names: Collection[str], place: str) -> dict[str, Any]:
    """The same of a flat record of some fields by dotted name.

    Args:
        record: what was stored.
        names: the fields that it would hold today.
        place: where, for the error.
    """
    values = dict(record)
    for change in _since(values.pop(KEY, 0), place):
        if isinstance(change, Added) and now_named(change.field) in names and not callable(change.before):
            values.setdefault(change.field, change.before)
        elif isinstance(change, Renamed):
            values = {_renamed(name, change): value for name, value in values.items()}
    return values


def file(folder: Path, name: str) -> Path:
    """Where a file of an artifact is: under its name of today, or under the one that it had before."""
    path = folder / name
    return file(folder, FILES[name]) if name in FILES and not path.is_file() else path


def whole(kind: type[SectionT], values: Any, place: str) -> SectionT:
    """A section of a record that is up to date.

    Raises:
        UserError: it lacks a field, has one that is unknown, or a value that cannot be; names place and field.
    """
    try:
        found = kind.model_validate(values, context=STORED)
    except ValidationError as error:
        first = error.errors()[0]
        field, problem = ".".join(map(str, first["loc"])), first["msg"]
    else:
        field, problem = next(_missing(found), ""), "the field is missing"
    if field:
        raise UserError(
            f"this version of prorec cannot read what is stored here ({field}: {problem})",
            place=place,
            cure="Make it again with this version, or use the one that made it",
        )
    return found


def now_named(field: str) -> str:
    """The name today of a field, by its dotted name in any earlier version."""
    for step in STEPS:
        for change in step:
            if isinstance(change, Renamed):
                field = _renamed(field, change)
    return field


def with_names_of_today(values: Any) -> Any:
    """Sections that were given by a person, with fields that have other names by now under these; nothing is added."""
    if not isinstance(values, Mapping):
        return values
    renamed = deepcopy(dict(values))
    for step in STEPS:
        for change in step:
            if isinstance(change, Renamed):
                _rename(renamed, change)
    return renamed


def _since(version: Any, place: str) -> Iterator[Change]:
    if not isinstance(version, int) or version < 0:
        raise UserError("this says no version that could be", place=place, cure="Make it again")
    if version > VERSION:
        raise UserError(
            f"a newer version of prorec wrote this (format {version}, this one reads up to {VERSION})",
            place=place,
            cure="Use that version of prorec, or a later one",
        )
    # The last step grows until a release: what was stored on the way has its number, and not yet all of its fields.
    return (change for step in STEPS[min(version, VERSION - 1) :] for change in step)


def _section(values: dict[str, Any], field: str) -> dict[str, Any] | None:
    """The section that a field is in; None where it is not there."""
    found: Any = values
    for part in field.split(".")[:-1]:
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _name(field: str) -> str:
    return field.rpartition(".")[2]


def _rename(values: dict[str, Any], change: Renamed) -> None:
    """Rename a field where it is; one that has a value under both names keeps both, and is refused by who reads it."""
    source, target = _section(values, change.field), values
    if source is None or _name(change.field) not in source:
        return
    for part in change.now.split(".")[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            return
    if _name(change.now) not in target:
        target[_name(change.now)] = source.pop(_name(change.field))


def _renamed(field: str, change: Renamed) -> str:
    return change.now + field.removeprefix(change.field) if f"{field}.".startswith(f"{change.field}.") else field


def _missing(section: BaseModel, above: str = "") -> Iterator[str]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if name not in section.model_fields_set:
            yield f"{above}{name}"
        elif isinstance(value, BaseModel):
            yield from _missing(value, f"{above}{name}.")
