"""Columns kept for rules: their kinds, their way through preprocess, and conditions on them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.config_data import DataConfig
from prorec_core.data.attributes import as_attribute, kind_of, moment
from prorec_core.data.conditions import Attribute, Attributes
from prorec_core.data.dataset import Dataset
from prorec_core.data.stage import preprocess
from prorec_core.errors import UserError


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        (["3", " 4 ", "", "none"], "number", [3, 4, None, None]),
        (["3", "4.5"], "number", [3.0, 4.5]),
        (["007", "12"], "text", ["007", "12"]),
        (["inf", "3"], "text", ["inf", "3"]),
        (["true", "False", None], "boolean", [True, False, None]),
        (["2024-01-31", "2024-01-31T12:00:00+02:00"], "date", [datetime(2024, 1, 31), datetime(2024, 1, 31, 10)]),
        (["['A', 'B &amp; C']", "[]", None], "texts", [["A", "B &amp; C"], [], None]),
        (["Fish &amp;  Chips", "3"], "text", ["Fish & Chips", "3"]),
        (["", None], "text", [None, None]),
        ([1, None, 3], "number", [1, None, 3]),
        ([1.5, float("nan")], "number", [1.5, None]),
        ([True, None], "boolean", [True, None]),
        ([date(1965, 5, 1), None], "date", [datetime(1965, 5, 1), None]),
        ([datetime(2024, 1, 1, 3, tzinfo=UTC)], "date", [datetime(2024, 1, 1, 3)]),
        ([["a"], [], None], "texts", [["a"], [], None]),
    ],
)
def test_each_column_has_a_kind(values: list[Any], kind: str, kept: list[Any]) -> None:
    found = as_attribute(pl.Series("column", values, strict=False), "here", ["", "none"], None)
    assert (kind_of(found.dtype), found.to_list(), found.name) == (kind, kept, "column")


def test_a_declared_kind_is_held_to() -> None:
    codes = as_attribute(pl.Series("code", ["12", "13"]), "here", [""], "text")
    assert codes.to_list() == ["12", "13"]
    assert as_attribute(pl.Series("code", [12]), "here", [""], "text").to_list() == ["12"]
    with pytest.raises(UserError, match=r"here: column 'price' holds what is not of the kind number .*row 2: 'x'"):
        as_attribute(pl.Series("price", ["3", "x"]), "here", [""], "number")
    with pytest.raises(UserError, match="column 'price' is of the kind number"):
        as_attribute(pl.Series("price", [3]), "here", [""], "date")
    with pytest.raises(UserError, match="column 'odd' has the type"):
        as_attribute(pl.Series("odd", [{"a": 1}]), "here", [""], None)


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))
def test_a_moment_is_read_as_it_is_written(time: datetime) -> None:
    since = time.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    expected = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
    assert moment(time.isoformat()) == expected == moment(time.isoformat(sep=" ") + "Z")


@pytest.mark.parametrize(
    "text", ["", "2024", "20240131", "2024-W01", "2024-13-01", "2024-01-01T25:00", "0001-01-01T00:00+23:59x"]
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert moment(text) is None


def columns() -> Attributes:
    frame = pl.DataFrame(
        {
            "price": [5, 10, None, 20],
            "brand": ["Acme", "Other", None, "Acme"],
            "sale": [True, False, True, None],
            "since": [datetime(2024, 1, 1), datetime(2024, 1, 2, 12), None, datetime(1960, 1, 1)],
            "tags": [["a", "b"], [], None, ["b"]],
        }
    )
    return Attributes(frame.get_columns(), 4)


@pytest.mark.parametrize(
    ("where", "items"),
    [
        ({"price": 10}, [1]),
        ({"price": [5, 20, 7]}, [0, 3]),
        ({"price": {"gte": 5, "lt": 20}}, [0, 1]),
        ({"price": {"lte": 10**400}}, [0, 1, 3]),
        ({"price": 10.0}, [1]),
        ({"price": {"gt": float("-inf")}}, [0, 1, 3]),
        ({"brand": "Acme"}, [0, 3]),
        ({"brand": ["Other", "Nobody"]}, [1]),
        ({"brand": "Nobody"}, []),
        ({"sale": True}, [0, 2]),
        ({"sale": [True, False]}, [0, 1, 2]),
        ({"since": "2024-01-01"}, [0]),
        ({"since": {"gt": "2024-01-01T23:00:00-02:00"}}, [1]),
        ({"since": {"lt": "1970-01-01"}}, [3]),
        ({"tags": "b"}, [0, 3]),
        ({"tags": ["a"]}, [0]),
        ({"brand": "Acme", "price": {"gt": 5}}, [3]),
    ],
)
def test_conditions_choose_items(where: dict[str, Any], items: list[int]) -> None:
    assert np.flatnonzero(columns().meet(where, "where")).tolist() == items


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"size": 3}, "where: no column 'size' is kept"),
        ({"price": True}, "where.price: 'True' is not what the column holds. Give a number"),
        ({"price": [3, "x"]}, "where.price: 'x' is not what"),
        ({"price": float("nan")}, "where.price: 'nan' is not what"),
        ({"sale": "true"}, "where.sale: 'true' is not what"),
        ({"sale": {"gt": False}}, "where.sale: a range asks for numbers or dates"),
        ({"brand": {"gte": "A"}}, "where.brand: a range asks for numbers or dates, and the column holds text"),
        ({"since": "yesterday"}, "where.since: 'yesterday' is not what"),
        ({"since": {"gte": 2024}}, "where.since: '2024' is not what"),
        ({"price": {"above": 3}}, "where.price: a range has gt, gte, lt, lte and no 'above'"),
    ],
)
def test_what_a_column_cannot_be_asked_is_told(where: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as told:
        columns().meet(where, "where")
    assert str(told.value).startswith(message)


@given(
    st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1, max_size=20), st.integers(-6, 6), st.integers(-6, 6)
)
def test_ranges_are_those_of_python(values: list[int | None], low: int, high: int) -> None:
    column = Attribute.of(pl.Series("x", values, dtype=pl.Int64))
    met = column.meets({"gte": low, "lt": high}, len(values))
    assert met.tolist() == [value is not None and low <= value < high for value in values]


def test_whole_numbers_of_64_bits_are_told_apart() -> None:
    ids = [2053013555631882655, 2053013555631882656, 2053013555631882657]
    column = Attributes([pl.Series("category", ids)], 3)
    for asked in (ids[1], [ids[1]], {"gte": ids[1], "lt": ids[2]}):
        assert column.meet({"category": asked}, "where").tolist() == [False, True, False]


def test_examples_are_what_one_would_ask_for() -> None:
    found = {name: each.examples(2) for name, each in columns().by_name.items()}
    assert found == {
        "price": [5, 20], "brand": ["Acme", "Other"], "sale": [False, True], "since": ["1960-01-01", "2024-01-02"],
        "tags": ["b", "a"],
    }  # fmt: skip
    assert Attribute.of(pl.Series("x", [None], dtype=pl.String)).examples(2) == []


def shop(folder: Path, **more: Any) -> DataConfig:
    rows = [(user, (user + step) % 8, 10 * step + user) for user in range(8) for step in range(5)]
    # One that nobody took before.
    rows.append((0, 8, 100))
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.write_csv(folder / "interactions.csv")
    items = pl.DataFrame(
        {
            "item_id": range(9),
            "title": [f"Thing {item}" for item in range(9)],
            "price": ["", *(f"{item}.5" for item in range(1, 9))],
            "item": ["x"] * 9,
        }
    )
    items.reverse().write_csv(folder / "items.csv")
    values = {"source": "tables", "path": str(folder), "text_columns": ["title"], **more}
    return DataConfig.model_validate(values)


@pytest.mark.parametrize(
    "more", [{"new_items": 0.3}, {"split": "by_time", "min_user_interactions": 3, "min_item_interactions": 1}]
)
def test_columns_go_through_preprocess_in_the_order_of_the_items(tmp_path: Path, more: dict[str, Any]) -> None:
    config = shop(tmp_path, attribute_columns=["price", "item", "item_id"], attribute_kinds=["item_id=text"], **more)
    dataset = preprocess(config)
    assert dataset.new_items is not None and dataset.attributes is not None
    ids = dataset.all_items()["item_id"].to_list()
    assert dataset.attributes["item_id"].to_list() == ids
    assert dataset.attributes["price"].to_list() == [None if item == "0" else float(f"{item}.5") for item in ids]
    assert dataset.profile["attributes"]["price"] == {"kind": "number", "items": len(ids) - ("0" in ids)}
    (tmp_path / "out").mkdir()
    dataset.save(tmp_path / "out")
    again = Dataset.load(tmp_path / "out")
    assert again.attributes is not None and again.attributes.equals(dataset.attributes)


def test_without_columns_nothing_is_kept(tmp_path: Path) -> None:
    dataset = preprocess(shop(tmp_path))
    (tmp_path / "out").mkdir()
    dataset.save(tmp_path / "out")
    assert dataset.attributes is None and Dataset.load(tmp_path / "out").attributes is None
    assert not (tmp_path / "out" / "attributes.parquet").exists() and "attributes" not in dataset.profile
    with pytest.raises(UserError, match=r"no column 'colour'.*data\.attribute_columns"):
        preprocess(shop(tmp_path, attribute_columns=["colour"]))
    with pytest.raises(ValueError, match="none of attribute_columns"):
        shop(tmp_path, attribute_kinds=["price=number"])


def test_codes_of_many_digits_stay_apart() -> None:
    codes = ["12345678901234567890", "12345678901234567891"]
    assert as_attribute(pl.Series("ean", codes), "items", (), None).to_list() == codes
    mixed = as_attribute(pl.Series("ean", ["9007199254740993", "1.5"]), "items", (), None)
    assert mixed.dtype == pl.String
    with pytest.raises(UserError, match="not of the kind number"):
        as_attribute(pl.Series("ean", codes), "items", (), "number")
    decimals = pl.Series("ean", [Decimal(code) for code in codes], dtype=pl.Decimal(20, 0))
    with pytest.raises(UserError, match=r"holds too large a number in row 1.* Declare the column as text"):
        as_attribute(decimals, "items", (), None)
    assert as_attribute(decimals, "items", (), "text").to_list() == codes
    assert as_attribute(pl.Series([Decimal("9007199254740993")]), "items", (), None).to_list() == [9007199254740993]


def test_a_number_of_32_bits_is_the_one_that_is_written() -> None:
    assert as_attribute(pl.Series([4.1, None], dtype=pl.Float32), "items", (), None).to_list() == [4.1, None]
