"""A file with a tuple of codes an item, in place of what a quantizer would find. Knows that file in its three forms;
knows nothing of what codes mean.

A table has a column `item_id`, and either `codes`, a list, or `code_0`, `code_1` and so on, as `codes.parquet` of this
project has. LETTER's `NAME.index.json` is one object, `{item: ["<a_1>", "<b_2>"]}`, or lists of numbers.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.artifacts import sha256_file
from prorec_core.config import QuantizeConfig
from prorec_core.data.columns import as_ids, shown
from prorec_core.data.formats import is_file, table_of
from prorec_core.data.json_object import Members, read_members
from prorec_core.data.opening import bare, format_of
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError
from prorec_core.paths import path_of
from prorec_core.quantization.quantizer import Codes

_CODE_COLUMN = re.compile(r"code_(0|[1-9][0-9]*)")
_TOKEN = re.compile(r"<([A-Za-z]+)_([0-9]{1,9})>")
_SHOWN = 3


def digest(config: QuantizeConfig) -> str:
    """Hex sha256 of the file; "" where there is none.

    Raises:
        UserError: there is no such file.
    """
    return sha256_file(_file(config.table)) if config.table is not None else ""


def given_codes(config: QuantizeConfig, item_ids: list[str]) -> Codes:
    """The codes of some items, in their order, uint16, shape (items, L).

    Raises:
        UserError: the file cannot be read; an item has no codes, or stands there twice; tuples of several lengths, of
            another length than `levels`, or with a code that is not below `codes`.
    """
    path = _file(config.table)
    place = str(path)
    if bare(format_of(path)) == ".json":
        ids, tuples = _of_object(read_members(path), place)
    else:
        ids, tuples = _of_table(table_of(path), place)
    if ids.is_duplicated().any():
        raise UserError(
            f"the item {shown(ids.filter(ids.is_duplicated())[0])} stands there twice", place=place, cure="Keep one row"
        )
    row_of = {item: row for row, item in enumerate(ids)}
    without = [item for item in item_ids if item not in row_of]
    if without:
        named = ", ".join(map(shown, without[:_SHOWN])) + (", …" if len(without) > _SHOWN else "")
        raise UserError(
            f"{len(without):,} of {len(item_ids):,} items have no codes: {named} (it has ids like {shown(ids[0])})"
            if len(ids)
            else "it holds no items",
            place=place,
            cure="Add them, or leave these items out of the data",
        )
    taken = tuples[[row_of[item] for item in item_ids]]
    levels, most = taken.shape[1], int(taken.max()) + 1
    if levels != config.levels or most > config.codes:
        raise UserError(
            f"its tuples have {levels} codes, up to {most - 1:,}, and the experiment has {config.levels} levels of "
            f"{config.codes:,}",
            place=place,
            cure=f"Set quantize.levels={levels} and quantize.codes={max(most, 2)} or more",
        )
    return taken.astype(np.uint16)


def _file(given: str | None) -> Path:
    path = path_of(given or "")
    if not is_file(path):
        raise UserError("there is no such file", place=f"quantize.table={given}", cure="Name the file with the codes")
    return path


def _of_table(table: RawTable, place: str) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    names = table.columns()
    numbered = sorted(int(match[1]) for name in names if (match := _CODE_COLUMN.fullmatch(name)))
    wanted = [f"code_{level}" for level in numbered]
    if "item_id" not in names or (("codes" in names) == bool(numbered)) or numbered != list(range(len(numbered))):
        raise UserError(
            f"its columns are {', '.join(names[:12])}",
            place=place,
            cure="There must be item_id, and either codes, a list, or code_0, code_1 and so on",
        )
    frame = table.collect("item_id", *(wanted or ["codes"]))
    ids = as_ids(frame["item_id"], table.place)
    if wanted:
        return ids, _matrix([_column(frame[name], name, place) for name in wanted])
    codes = frame["codes"]
    if not isinstance(codes.dtype, pl.List | pl.Array):
        raise UserError(f"the column codes is {codes.dtype}", place=place, cure="Write lists of whole numbers")
    lists = codes.arr.to_list() if isinstance(codes.dtype, pl.Array) else codes
    lengths = lists.list.len()
    _expect_one_length(ids, lengths, place)
    if not len(lists):
        return ids, np.zeros((0, 0), np.int64)
    flat = _column(lists.explode(), "codes", place)
    return ids, flat.to_numpy().astype(np.int64).reshape(len(lists), -1)


def _matrix(columns: list[pl.Series]) -> npt.NDArray[np.int64]:
    return np.stack([column.to_numpy().astype(np.int64) for column in columns], axis=1)


def _column(values: pl.Series, name: str, place: str) -> pl.Series:
    found = values.cast(pl.Int64, strict=False) if values.dtype == pl.String or values.dtype.is_integer() else None
    if found is None or found.has_nulls() or bool((found < 0).any()) or bool((found > 65_535).any()):
        raise UserError(
            f"the column {name} holds what is no code", place=place, cure="Write whole numbers from 0 to 65,535"
        )
    return found


def _expect_one_length(ids: pl.Series, lengths: pl.Series, place: str) -> None:
    odd = (lengths != lengths[0]).fill_null(True) if len(lengths) else lengths
    if len(lengths) and (odd.any() or lengths[0] in {0, None}):
        row = int(odd.arg_max() or 0) if odd.any() else 0
        raise UserError(
            f"the item {shown(ids[row])} has {lengths[row] or 0} codes, and {shown(ids[0])} has {lengths[0] or 0}",
            place=place,
            cure="Give every item as many codes",
        )


def _of_object(members: Members, place: str) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    ids = pl.Series([item for item, _ in members], dtype=pl.String)
    for item, value in members:
        if not isinstance(value, list):
            problem = f"the item {shown(item)} has no list of codes but {shown(value)}"
            raise UserError(problem, place=place, cure='Write a list for each, as ["<a_12>", "<b_3>"] or [12, 3]')
    lists = [value for _, value in members]
    _expect_one_length(ids, pl.Series([len(each) for each in lists], dtype=pl.Int64), place)
    found = np.zeros((len(lists), len(lists[0]) if lists else 0), np.int64)
    kinds: list[str] = []
    for row, tuple_ in enumerate(lists):
        for level, code in enumerate(tuple_):
            match = _TOKEN.fullmatch(code) if isinstance(code, str) else None
            number = int(match[2]) if match else code
            kind = match[1] if match else ""
            if len(kinds) == level:
                kinds.append(kind)
            if type(number) is not int or not 0 <= number <= 65_535 or kind != kinds[level]:
                raise UserError(
                    f"the item {shown(ids[row])} holds what is no code of level {level}: {shown(code)}",
                    place=place,
                    cure='Write codes as "<a_12>", each level with a letter of its own, or as whole numbers to 65,535',
                )
            found[row, level] = number
    return ids, found
