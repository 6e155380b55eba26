"""Item vectors of one's own: every item has its own, and what is wrong with the file is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prorec_core.config_data import TextConfig
from prorec_core.errors import UserError
from prorec_core.text.given import GivenVectors
from prorec_core.text.stage import embed_text


def _config(path: Path) -> TextConfig:
    return TextConfig(encoder="vectors", model=str(path))


def _file(folder: Path, ids: list[Any], vectors: list[Any], **kind: Any) -> Path:
    path = folder / "vectors.parquet"
    pl.DataFrame({"item_id": ids, "embedding": pl.Series(vectors, **kind)}).write_parquet(path)
    return path


@pytest.mark.parametrize("dtype", [pl.List(pl.Float64), pl.Array(pl.Float32, 3), pl.List(pl.Int16)])
def test_items_get_their_own_vectors_in_their_own_order(tmp_path: Path, dtype: Any) -> None:
    vectors = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    path = _file(tmp_path, [7, 8, 9], vectors, dtype=dtype)
    found = embed_text(_config(path), ["9", "7", "9"], ["a", "b", "c"])
    assert found.dtype == np.float32 and found.tolist() == [[7, 8, 9], [1, 2, 3], [7, 8, 9]]


def test_another_file_is_another_digest(tmp_path: Path) -> None:
    path = _file(tmp_path, ["a"], [[1.0]])
    before = GivenVectors.digest(_config(path))
    moved = path.rename(tmp_path / "moved.parquet")
    assert GivenVectors.digest(_config(moved)) == before
    assert GivenVectors.digest(_config(_file(tmp_path, ["a"], [[2.0]]))) != before


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a", "b", "a"], [[1.0]] * 3, "row 1: item_id 'a' stands there twice. Keep one."),
        (["a", "b"], [[1.0, 2.0], [1.0]], "row 2, item_id 'b': its vector has not 2 numbers as others have."),
        (
            ["a", "b", "c"],
            [[1.0], [1.0, 2.0], [1.0]],
            "row 2, item_id 'b': its vector has not 1 numbers as others have.",
        ),
        (["a", "b"], [[1.0], None], "row 2, item_id 'b': its vector has not 1 numbers as others have."),
        (["a", "b"], [[1.0], [float("nan")]], "row 2, item_id 'b': its vector holds what is no finite number."),
        (["a", "b"], [["x"], ["y"]], "the column 'embedding' is large_list<"),
        (["b"], [[1.0]], "1 of 2 items have no vector: a. Add them"),
        ([], [], "no item has a vector"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, ids: list[Any], vectors: list[Any], message: str) -> None:
    kind = {} if ids else {"dtype": pl.List(pl.Float32)}
    path = _file(tmp_path, ids, vectors, **kind)
    with pytest.raises(UserError) as caught:
        embed_text(_config(path), ["a", "b"], ["", ""])
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_file_that_is_none_or_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text\.model=.*nowhere: there is no such file"):
        embed_text(_config(tmp_path / "nowhere"), [], [])
    (tmp_path / "text").write_text("no table")
    with pytest.raises(UserError, match="the vectors cannot be read"):
        embed_text(_config(tmp_path / "text"), [], [])
    pl.DataFrame({"item": ["a"]}).write_parquet(tmp_path / "columns.parquet")
    with pytest.raises(UserError, match="there is no column 'item_id' but item"):
        embed_text(_config(tmp_path / "columns.parquet"), [], [])
