"""The file in which columns of items are kept for rules, beside the table of items and in a model.

Knows the file; knows nothing of kinds, of raw columns or of rules: whatever reads a data set depends on this alone.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from prorec_core.artifacts import read_parquet, write_parquet

FILE = "attributes.parquet"
"""`item_id`, and each column's name after `PREFIX`."""
PREFIX = "attribute."


def save(path: Path, item_ids: pl.Series, attributes: pl.DataFrame) -> None:
    """Write the columns of items, in the order of their ids."""
    kept = {f"{PREFIX}{column.name}": column for column in attributes.get_columns()}
    write_parquet(path, pl.DataFrame({"item_id": item_ids, **kept}).to_arrow())


def load(path: Path, item_ids: pl.Series) -> pl.DataFrame:
    """The columns that `save` wrote, a row for each of some items; null where one was not there.

    Raises:
        UserError: the file cannot be read, or an incompatible version of this software wrote it.
    """
    frame = pl.DataFrame(pl.from_arrow(read_parquet(path, "preprocess").replace_schema_metadata(None)))
    wanted = pl.DataFrame({"item_id": item_ids})
    found = wanted.join(frame, on="item_id", how="left", maintain_order="left").drop("item_id")
    return pl.DataFrame([column.alias(column.name.removeprefix(PREFIX)) for column in found.get_columns()])
