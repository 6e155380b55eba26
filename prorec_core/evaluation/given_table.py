"""The table in which another program left its lists: where it is, and its columns. Knows no data set."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from prorec_core.artifacts import sha256_file
from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.columns import Field, as_ids, shown
from prorec_core.data.files import path_of
from prorec_core.data.formats import is_file
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError
from prorec_core.metrics.scorers import GIVEN

SPLIT, USER, ITEM, POSITION = "split", "user_id", "item_id", "position"
RANK, SCORE = "rank", "score"
SEED = "{seed}"
"""What stands for the seed in the name of a file of which there is one a seed."""


def file_of(config: EvaluateConfig, seed: int) -> Path:
    """The file of `evaluate.lists_file` for a seed.

    Raises:
        UserError: none is named, or there is no such file.
    """
    if config.lists_file is None:
        raise UserError(
            f"the scorer '{GIVEN}' measures lists of a file, and none is named",
            place="evaluate.lists_file",
            cure="Name it: a table of split, user_id, item_id, and rank or score",
        )
    path = path_of(config.lists_file.replace(SEED, str(seed)))
    if not is_file(path):
        raise UserError(
            "there is no such file",
            place=f"evaluate.lists_file={path}",
            cure="Name the file with the lists; a relative path begins in the folder of the command",
        )
    return path


def digest(config: EvaluateConfig, seed: int) -> str:
    """Hex sha256 of that file.

    Raises:
        UserError: as `file_of`.
    """
    return sha256_file(file_of(config, seed))


def read_columns(table: RawTable) -> pl.DataFrame:
    """What is needed of the table.

    Returns:
        A row a row: row (its number), split, user_id, item_id (strings), order (float64, rising along a list), ranked
        (whether that is a rank, of which a list has each once) and, where the table has it, position (int64).

    Raises:
        UserError: a column is missing, or a row has no id or no number.
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
    order = _ranks(frame[RANK], table.place) if orders[0] == RANK else -_scores(frame[SCORE], table.place)
    return frame.select(
        pl.Series(SPLIT, frame[SPLIT].cast(pl.String)),
        as_ids(frame[USER], table.place).alias(USER),
        as_ids(frame[ITEM], table.place).alias(ITEM),
        order.alias("order"),
        pl.lit(value=orders[0] == RANK).alias("ranked"),
        *([_whole(frame[POSITION], table.place).alias(POSITION)] if POSITION in frame.columns else []),
    ).with_row_index("row")


def _whole(column: pl.Series, place: str) -> pl.Series:
    """Whole numbers as int64.

    Raises:
        UserError: names the first row that has none.
    """
    found = column.cast(pl.Float64, strict=False)
    Field(column.name, place).refuse(
        found.is_null() | ~found.is_finite() | (found != found.round()) | (found < 0),
        "holds what is no whole number from 0 on",
        column,
    )
    return found.cast(pl.Int64)


def _ranks(column: pl.Series, place: str) -> pl.Series:
    return _whole(column, place).cast(pl.Float64)


def _scores(column: pl.Series, place: str) -> pl.Series:
    found = column.cast(pl.Float64, strict=False)
    Field(column.name, place).refuse(found.is_null() | ~found.is_finite(), "holds what is no finite number", column)
    return found
