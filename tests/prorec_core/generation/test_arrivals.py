"""Files of items that come to a model: read as its own items were."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from prorec_core.artifacts import sha256_file
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.errors import UserError
from prorec_core.generation.additions import named
from prorec_core.generation.arrivals import Arrivals, read_arrivals, read_ids

KEPT = pl.DataFrame({"brand": ["A1", None], "price": [3, 4], "sale": [True, False]})


def arrivals(path: Path, **columns: list[str]) -> Arrivals:
    rows = {"item_id": ["n1", "n2"], "title": ["t", "u"], **columns}
    pl.DataFrame(rows).write_csv(path)
    data = DataConfig(source="tables", text_columns=["title"], attribute_columns=list(KEPT.columns))
    return read_arrivals(data, TextConfig(), path, sha256_file(path), KEPT)


def test_columns_for_rules_are_of_the_kinds_that_the_model_has(tmp_path: Path) -> None:
    found = arrivals(tmp_path / "new.csv", brand=["7", "12"], price=["1.5", ""], sale=["true", ""]).attributes
    assert found["brand"].to_list() == ["7", "12"], "of these two alone they would be numbers"
    assert found["price"].to_list() == [1.5, None] and found["sale"].to_list() == [True, None]
    with pytest.raises(UserError, match=r"new.csv: column 'price' holds what is not of the kind number.* line 3: 'x'"):
        arrivals(tmp_path / "new.csv", brand=["7", "12"], price=["3", "x"], sale=["", ""])


def test_items_without_a_text_are_told(tmp_path: Path) -> None:
    kinds = {"brand": ["A", "B"], "price": ["1", "2"], "sale": ["", ""]}
    assert arrivals(tmp_path / "new.csv", **kinds).remarks == []
    (told,) = arrivals(tmp_path / "new.csv", **{**kinds, "title": ["t", ""]}).remarks
    assert told.endswith("new.csv: 1 of 2 items have no text, as 'n2': they are placed by their ids")


def test_ids_are_told_in_one_short_line(tmp_path: Path) -> None:
    told = named(["x" * 10_000, "a\x1b[31mb", "c", "d"])
    assert len(told) < 1000 and told.isprintable() and told.endswith("and 1 more are")
    (tmp_path / "gone.csv").write_text("sku\na\n")
    with pytest.raises(UserError, match=r"no column 'item_id' but 'sku'\. Name the items in a column 'item_id'"):
        read_ids(DataConfig(source="tables"), tmp_path / "gone.csv", sha256_file(tmp_path / "gone.csv"))
