"""Files that say which items come to a model and which go. Knows how the shop's tables are read; knows no registry.

A file is read as it is at one moment: who writes it meanwhile is found out by its digest, and it counts as not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pyarrow as pa

from prorec_core.artifacts import sha256_file
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.data.attributes import kind_of
from prorec_core.data.columns import shown
from prorec_core.data.formats import ATOMIC, TABLES, TextRules, ends_in, is_file, open_file
from prorec_core.data.forms import in_other_forms, pair_shown
from prorec_core.data.id_lists import read_ids as ids_in
from prorec_core.data.opening import format_of
from prorec_core.data.raw import read_items
from prorec_core.data.tables import RawTable, reading
from prorec_core.errors import UserError
from prorec_core.text.placing import given_columns
from prorec_core.text.vectors import VectorTable, table_of


class ChangingError(UserError):
    """Somebody writes the file."""


@dataclass(frozen=True)
class Arrivals:
    """New items as a file has them.

    Attributes:
        items: item_id, title and text, strings, a row an item.
        attributes: the columns of theirs that the model keeps for rules.
        vectors: by source semantic vectors that came with them.
        remarks: what a user should know of the values, a sentence each.
    """

    items: pl.DataFrame
    attributes: pl.DataFrame
    vectors: Mapping[str, VectorTable]
    remarks: list[str]

    def without(self, known: pl.Series) -> Arrivals:
        """Those that are not among some ids."""
        return self._those(~self.items["item_id"].is_in(known.implode()))

    def only(self, item_ids: list[str]) -> Arrivals:
        """Those that are among some ids, in their own order."""
        return self._those(self.items["item_id"].is_in(item_ids))

    def _those(self, left: pl.Series) -> Arrivals:
        attributes = self.attributes.filter(left) if self.attributes.width else self.attributes
        return replace(self, items=self.items.filter(left), attributes=attributes)


def read_arrivals(
    data: DataConfig, text: TextConfig, file: Path, sha256: str, attributes: pl.DataFrame | None = None
) -> Arrivals:
    """New items in a file with the columns of the shop's items file.

    Args:
        data: how the shop's items are read.
        text: what they are described by; vectors of new items stand in columns (`given_columns`).
        file: of any format of items files.
        sha256: what the file is.
        attributes: columns that the model keeps for rules: the new items' are of the same kinds.

    Raises:
        UserError: no such file, no row, a column is not there, a value cannot be used, an item stands there twice.
        ChangingError: it is another file by now.
    """
    if attributes is not None:
        # A few new values tell a kind less surely than all that the shop had: brands may all be numbers.
        kinds = [
            f"{column.name}={kind_of(column.dtype)}" for column in attributes if column.name in data.attribute_columns
        ]
        data = data.model_copy(update={"attribute_kinds": kinds})
    table = _table(data, file)
    wanted = [data.item_column, *data.text_columns, *([data.title_column] if data.title_column else [])]
    missing = {each.name: each.missing for each in text.vectors}
    vectors = {}
    with reading(str(file)):
        _need(table, [*wanted, *data.attribute_columns], "Give the columns that the model's items were read by")
        found = read_items(data, table)
        ids = found.items["item_id"].to_list()
        for source, column in given_columns(text).items():
            every = missing.get(source, "error") == "error"
            if every:
                _need(table, [column], f"The model's items have vectors '{source}' of their own: give these some in")
            if ids and column in table.columns():
                values = pa.chunked_array([table.collect(column)[column].to_arrow()])
                vectors[source] = table_of(ids, values, column, str(file), every=every)
    _unchanged(file, sha256)
    items = found.items
    if not items.height:
        raise UserError("the file holds no item", place=str(file), cure="Give at least one")
    blank = items.filter(pl.col("text") == "")["item_id"]
    if blank.len() and (data.items_without_text != "keep"):
        raise UserError(
            f"{blank.len():,} items have no text, such as '{blank[0]}', and the model's shop takes none of these "
            f"(data.items_without_text={data.items_without_text})",
            place=str(file),
            cure="Give them texts, or leave them out",
        )
    named = [pl.when(pl.col(name) == "").then("item_id").otherwise(name).alias(name) for name in ("title", "text")]
    remarks = list(found.remarks)
    if blank.len():
        remarks.append(
            f"{file}: {blank.len():,} of {items.height:,} items have no text, as {shown(blank[0])}: "
            "they are placed by their ids"
        )
    return Arrivals(items.with_columns(named), found.attributes, vectors, remarks)


def read_ids(data: DataConfig, file: Path, sha256: str) -> list[str]:
    """Ids of items in a file: one a line in a `.txt`, else the shop's column of item ids; each once.

    Raises:
        UserError: no such file, no id, or no such column.
        ChangingError: it is another file by now.
    """
    tables = ATOMIC if data.source == "recbole" else TABLES
    rules = TextRules(data.quotes, data.multiline)
    ids = ids_in(file, data.item_column, None, missing=data.missing, tables=tables, rules=rules)
    _unchanged(file, sha256)
    if not ids:
        raise UserError("the file names no item", place=str(file), cure="Name at least one")
    return ids


def expect_own_forms(new: pl.Series, known: pl.Series, data: DataConfig, place: str) -> None:
    """Refuse new ids that are known ones in another form (7.0 and 7), unless the shop tells such items apart.

    Raises:
        UserError: shows the first of them.
    """
    if data.similar_ids == "apart":
        return
    pairs = in_other_forms(new, known)
    if pairs.height:
        one, other = pair_shown(*pairs.row(0))
        raise UserError(
            f"{pairs.height:,} item ids are in the model in another form: {one} here is {other} there",
            place=place,
            cure="Write ids as the model has them",
        )


def _table(data: DataConfig, file: Path) -> RawTable:
    readers = ATOMIC if data.source == "recbole" else TABLES
    if format_of(file) not in readers:
        raise UserError("a file of this kind is not read", place=str(file), cure=f"Give one that {ends_in(readers)}")
    if not is_file(file):
        raise UserError("there is no such file", place=str(file), cure="Check the name")
    return open_file(file, TextRules(data.quotes, data.multiline))


def _need(table: RawTable, wanted: list[str], why: str) -> None:
    present = table.columns()
    if missing := [name for name in dict.fromkeys(wanted) if name not in present]:
        raise UserError(
            f"there is no column {', '.join(map(repr, missing))} but {', '.join(present)}",
            place=table.place,
            cure=f"{why}: {', '.join(dict.fromkeys(wanted))}",
        )


def _unchanged(file: Path, sha256: str) -> None:
    with reading(str(file)):
        if sha256_file(file) != sha256:
            raise ChangingError(
                "the file was changed while it was read", place=str(file), cure="Wait until it is whole"
            )
