"""The JSON files that LETTER, LC-Rec and MiniOneRec exchange: histories by user, and texts by item.

Knows `NAME.inter.json` ({user: [item, …]}, the oldest first) and `NAME.item.json` ({item: {field: value}}). Knows
nothing of codes: `NAME.index.json` is read by `quantize.table`.

Each file is one object, so it is read whole; a key that stands there twice is refused, since one of both would be lost.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from prorec_core.artifacts import sha256_file, sha256_json
from prorec_core.config_data import DataConfig
from prorec_core.data.files import find_files, folder_of
from prorec_core.data.json_lines import JsonLinesReader
from prorec_core.data.json_object import Members, read_members
from prorec_core.data.opening import COMPRESSED
from prorec_core.data.tables import RawTable, reading
from prorec_core.errors import UserError

_KINDS = (".inter.json", ".item.json")


@dataclass(frozen=True)
class LetterSource:
    """Two files, each one JSON object."""

    log: Path
    stock: Path

    def interactions(self) -> RawTable:
        users: list[str] = []
        items: list[Any] = []
        times: list[int] = []
        place = str(self.log)
        for user, history in read_members(self.log):
            if not isinstance(history, list) or not all(type(item) in (int, str) for item in history):
                raise UserError(
                    f"the user '{user}' has no list of items", place=place, cure='It must be {"user": [item, item]}'
                )
            users += [user] * len(history)
            items += [str(item) for item in history]
            times += range(len(history))
        frame = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}, schema_overrides=_SCHEMA)
        return RawTable.of_frame(frame, place)

    def items(self) -> RawTable:
        place, lines = str(self.stock), []
        for item, fields in read_members(self.stock):
            if not isinstance(fields, Members):
                raise UserError(
                    f"the item '{item}' has no fields", place=place, cure='It must be {"item": {"title": "…"}}'
                )
            plain = dict(fields)
            if "item_id" in plain or len(plain) < len(fields):
                raise UserError(
                    f"the item '{item}' has a field twice, or one called item_id", place=place, cure="Keep one"
                )
            try:
                lines.append(orjson.dumps({"item_id": item, **plain}))
            except TypeError as error:
                # A whole number of more than 64 bits, or lists in lists in lists.
                problem = f"the item '{item}' has a value that cannot be kept ({error})"
                raise UserError(problem, place=place, cure="Write it as a text") from error
        text = b"\n".join(lines)
        # A line an item: messages name the place of an item among the others.
        return RawTable(JsonLinesReader(lambda: io.BytesIO(text), place), place)

    def facts(self) -> dict[str, Any]:
        return {"files": [self.log.name, self.stock.name]}

    def digest(self) -> str:
        found = []
        for path in (self.log, self.stock):
            with reading(str(path)):
                found.append(sha256_file(path))
        return sha256_json(["letter", *found])


_SCHEMA = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}


def letter(config: DataConfig) -> LetterSource:
    """`NAME.inter.json` and `NAME.item.json` in a folder, whatever NAME is.

    Raises:
        UserError: no path, no such folder, or not one of each.
    """
    if config.path is None:
        raise UserError("the source 'letter' needs a folder", place="data.path", cure="Set data.path to the folder")
    folder = folder_of(config.path)
    found = [
        _one(folder, given, setting, kind)
        for given, setting, kind in (
            (config.interactions_file, "interactions_file", _KINDS[0]),
            (config.items_file, "items_file", _KINDS[1]),
        )
    ]
    return LetterSource(*found)


def _one(folder: Path, given: str | None, setting: str, kind: str) -> Path:
    if given is not None:
        suffixes = [f".json{packed}" for packed in ("", *COMPRESSED)]
        return find_files(folder, given, setting, kind, suffixes=suffixes, other="tables").path
    with reading(str(folder)):
        names = [kind + packed for packed in ("", *COMPRESSED)]
        found = sorted(path for path in folder.iterdir() if path.name.endswith(tuple(names)) and path.is_file())
    if len(found) == 1:
        return found[0]
    told = f"several files could be meant: {', '.join(path.name for path in found)}"
    raise UserError(
        told if found else f"there is no file *{kind}", place=str(folder), cure=f"Name one in data.{setting}"
    )
