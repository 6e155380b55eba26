from __future__ import annotations

import polars as pl
import pytest
from pydantic import ValidationError

from prorec_core.config_data import DataConfig
from prorec_core.data.columns import as_ids, as_ratings, need_columns, shown
from prorec_core.data.tables import RawTable
from prorec_core.data.texts import as_text
from prorec_core.data.times import as_timestamps
from prorec_core.errors import UserError


def test_ids_are_strings_or_whole_numbers() -> None:
    assert as_ids(pl.Series("u", [7, 8]), "f").to_list() == ["7", "8"]
    assert as_ids(pl.Series("u", ["007"]), "f").to_list() == ["007"]
    for bad, said in (([1.5], "type Float64"), (["a", None], "no id in row 2"), (["", "a"], "no id in row 1")):
        with pytest.raises(UserError, match=said):
            as_ids(pl.Series("u", bad), "f")


def test_ids_of_other_types_are_shown_beside_those_that_they_should_meet() -> None:
    for values, said in (
        ([24.0], "type Float64, as '24.0'"),
        ([True], "as 'true'"),
        ([[1, 2]], "type List(Int64), as '"),
    ):
        with pytest.raises(UserError) as caught:
            as_ids(pl.Series("item_id", values), "log.jsonl", beside="items.jsonl has '24'")
        assert said.lower() in str(caught.value).lower() and "items.jsonl has '24'" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_id_is_an_error_however_it_is_written() -> None:
    ids = pl.Series("u", ["a", " \t", "nan"])
    with pytest.raises(UserError, match="missing in row 2"):
        as_ids(ids, "f")
    with pytest.raises(UserError, match="an id that counts as missing in row 3: 'nan'"):
        as_ids(ids.set(ids == " \t", "b"), "f", ["nan"])
    assert as_ids(pl.Series("u", ["a", " b ", "nan"]), "f").to_list() == ["a", " b ", "nan"], "else as it stands"
    with pytest.raises(UserError, match="no id in row 1"):
        as_ids(pl.Series("u", [None, None]), "f")


def test_numbers_that_are_declared_missing_are_missing() -> None:
    for values in ([5, -1], [5.0, -1.0], ["5", "-1"]):
        assert as_ratings(pl.Series("r", values), "f", ["-1", "NULL"]).to_list() == [5.0, None]
    with pytest.raises(UserError, match="counts as missing in row 2: '0'"):
        as_ids(pl.Series("u", [7, 0]), "f", ["0"])
    with pytest.raises(ValidationError, match="put it in quotes"):
        DataConfig.model_validate({"missing": ["nan", None]})


def test_values_in_messages_are_one_line_and_can_be_seen() -> None:
    assert shown("a\nb\x1b[1m") == "'a\\nb\\x1b[1m'" and shown("7\u00a0") == "'7\\xa0'"
    assert shown("\u200b7") == "'\\u200b7'" and len(shown("x" * 10_000)) < 70


def test_ratings() -> None:
    assert as_ratings(pl.Series("r", ["4", "N/A"]), "f", ["N/A"]).to_list() == [4.0, None]
    with pytest.raises(UserError, match=r"data\.missing"):
        as_ratings(pl.Series("r", ["4", "N/A"]), "f")
    assert as_ratings(pl.Series("r", ["4", None, "NaN"]), "f").to_list() == [4.0, None, None]
    with pytest.raises(UserError, match="no number in row 2: 'good'"):
        as_ratings(pl.Series("r", ["4", "good"]), "f")
    for endless in (["4", "-inf"], [4.0, float("-inf")]):
        with pytest.raises(UserError, match=r"no finite number in row 2: '?-inf'?"):
            as_ratings(pl.Series("r", endless), "f")


def test_missing_column_names_those_that_exist_and_the_nearest() -> None:
    table = RawTable.of_frame(pl.DataFrame({"uid": [1], "item": [1]}), "log.csv")
    with pytest.raises(UserError) as caught:
        need_columns(table, {"uid": "data.user_column", "items": "data.item_column"})
    assert str(caught.value) == (
        "log.csv: there is no column 'items'. Set data.item_column to one of: uid, item (nearest: 'item')."
    )


@pytest.mark.parametrize("name", ["^t.*$", "*", "rows", "value", ""])
def test_a_column_may_have_any_name(name: str) -> None:
    """Polars takes some names for patterns."""
    assert as_ids(pl.Series(name, ["a", " b"]), "f").to_list() == ["a", " b"]
    assert as_ratings(pl.Series(name, ["1", "nan", ""]), "f").to_list() == [1.0, None, None]
    assert as_text(pl.Series(name, [["['A']", "B"]]), "f").to_list() == ["['A'], B"]
    assert as_timestamps(pl.Series(name, ["2024-01-31 10:00:00 UTC"]), "f")[0].to_list() == [1_706_695_200]
    for read, values in ((as_ids, ["a", ""]), (as_ratings, ["x"]), (as_timestamps, ["x"])):
        with pytest.raises(UserError) as caught:
            read(pl.Series(name, values), "f")
        assert f"column '{name}'" in str(caught.value)


def test_a_rating_of_32_bits_is_the_number_that_is_written() -> None:
    ratings = pl.Series("rating", [4.1, 0.1, 5.0, None], dtype=pl.Float32)
    assert as_ratings(ratings, "log").to_list() == [4.1, 0.1, 5.0, None]
