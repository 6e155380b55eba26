"""The table in which another program left its lists: where it is, and its columns. Knows no data set."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from prorec_core.artifacts import sha256_file
from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.columns import LETTERS, PLAIN, Field, as_ids, shown
from prorec_core.data.formats import TextRules, is_file, table_of
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError
from prorec_core.metrics.scorers import GIVEN
from prorec_core.paths import path_of

SPLIT, USER, ITEM, POSITION = "split", "user_id", "item_id", "position"
RANK, SCORE = "rank", "score"
SEED = "{seed}"
"""What stands for the seed in the name of a file of which there is one a seed."""
_RULES = TextRules(quotes_setting="every field in quotes", multiline_setting="every field in quotes")
_MOST = 2**53
"""Up to here a float says each whole number."""


def file_of(config: EvaluateConfig, seed: int, place: str = "evaluate.lists_file") -> Path:
    """The file of `evaluate.lists_file` for a seed.

    Args:
        config: names it.
        seed: of the experiment.
        place: for messages.

    Raises:
        UserError: none is named, or there is no such file.
    """
    if config.lists_file is None:
        raise UserError(
            f"the scorer '{GIVEN}' measures lists of a file, and none is named",
            place=place,
            cure="Name it in evaluate.lists_file: a table of split, user_id, item_id, and rank or score",
        )
    path = path_of(config.lists_file.replace(SEED, str(seed)))
    if not is_file(path):
        raise UserError(
            "there is no such file",
            place=f"{place}={path}",
            cure="Name the file with the lists; a relative path begins in the folder of the command",
        )
    return path


def digest(config: EvaluateConfig, seed: int) -> str:
    """Hex sha256 of that file.

    Raises:
        UserError: as `file_of`.
    """
    return sha256_file(file_of(config, seed))


def table_in(path: Path) -> RawTable:
    """The table in a file, by its suffix.

    Raises:
        UserError: there is no such file, or its suffix is of no table.
    """
    return table_of(path, _RULES)


def read_columns(table: RawTable) -> pl.DataFrame:
    """What is needed of the table.

    Returns:
        A row a row: row (its number), split, user_id, item_id (strings), order (whole numbers, rising along a list),
        value (float64: the score, or minus the rank), ranked (whether order is a rank, of which a list has each once)
        and, where the table has it, position (int64).

    Raises:
        UserError: a column is missing or of a type that it cannot be, or a row has no id or no number.
    """
    there = table.columns()
    orders = [name for name in (RANK, SCORE) if name in there]
    missing = [name for name in (SPLIT, USER, ITEM) if name not in there]
    if missing or not orders:
        what = f"'{missing[0]}'" if missing else f"'{RANK}' or '{SCORE}'"
        raise UserError(
            f"there is no column {what} but {', '.join(map(shown, there[:12]))}",
            place=table.place,
            cure=f"Name the columns {SPLIT}, {USER}, {ITEM}, and {RANK} or {SCORE}; {POSITION} too where a user has "
            "several targets",
        )
    frame = table.collect(SPLIT, USER, ITEM, orders[0], *([POSITION] if POSITION in there else []))
    if not frame.height:
        raise UserError("the table has no rows", place=table.place, cure="Give a row an item of a list")
    ranked = orders[0] == RANK
    if ranked:
        order = _whole(frame[RANK], table.place)
        value = -order.cast(pl.Float64)
    else:
        scores = _scores(frame[SCORE], table.place)
        order, value = scores.rank("dense", descending=True), scores.cast(pl.Float64)
    return frame.select(
        _texts(frame[SPLIT], table.place).alias(SPLIT),
        as_ids(frame[USER], table.place).alias(USER),
        as_ids(frame[ITEM], table.place).alias(ITEM),
        order.cast(pl.Int64).alias("order"),
        value.alias("value"),
        pl.lit(value=ranked).alias("ranked"),
        *([_whole(frame[POSITION], table.place).alias(POSITION)] if POSITION in frame.columns else []),
    ).with_row_index("row")


def _texts(column: pl.Series, place: str) -> pl.Series:
    if column.dtype not in (*LETTERS, pl.Null):
        Field(column.name, place).refuse_type(column.dtype, "it holds texts: validation and test")
    return column.cast(pl.String)


def _whole(column: pl.Series, place: str) -> pl.Series:
    """Whole numbers from 0 on as int64.

    Raises:
        UserError: another type, or the first row that has none.
    """
    numbers = _numbers(column, place)
    if numbers.dtype.is_float():
        fits = (numbers == numbers.round()) & (numbers.abs() < _MOST)
        found = numbers.set(~fits.fill_null(value=False), None).cast(pl.Int64)
    else:
        found = numbers.cast(pl.Int64, strict=False)
    bad = found.is_null() | (found < 0)
    Field(column.name, place).refuse(bad, "holds what is no whole number from 0 on", column.alias(PLAIN))
    return found


def _scores(column: pl.Series, place: str) -> pl.Series:
    """Numbers, whole ones as they are.

    Raises:
        UserError: another type, or the first row that has none, or an infinite one.
    """
    numbers = _numbers(column, place)
    bad = numbers.is_null() if numbers.dtype.is_integer() else ~numbers.is_finite().fill_null(value=False)
    Field(column.name, place).refuse(bad, "holds what is no finite number", column.alias(PLAIN))
    return numbers


def _numbers(column: pl.Series, place: str) -> pl.Series:
    """Numbers: whole ones where all are, null where a text is none.

    Raises:
        UserError: a type that is neither numbers nor texts.
    """
    if not (column.dtype.is_numeric() or column.dtype in (*LETTERS, pl.Null)):
        Field(column.name, place).refuse_type(column.dtype, "it holds numbers")
    if column.dtype.is_integer():
        return column
    if column.dtype in LETTERS:
        texts = column.cast(pl.String).str.strip_chars()
        whole = texts.cast(pl.Int64, strict=False)
        return whole if whole.null_count() == texts.null_count() else texts.cast(pl.Float64, strict=False)
    return column.cast(pl.Float64, strict=False)
