"""Codes of one's own, in each form of file, and what is refused of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prorec_core.config import QuantizeConfig
from prorec_core.errors import UserError
from prorec_core.quantization.code_files import digest, given_codes
from prorec_core.quantization.quantized import Quantized
from prorec_core.quantization.quantizer import Floats
from prorec_core.quantization.stage import fitted_quantizer, quantize, with_new

Make = Callable[..., Floats]
Config = Callable[..., QuantizeConfig]
IDS = [f"i{n}" for n in range(240)]
CODES = np.stack([np.arange(240) // 40, np.arange(240) % 40 // 8, np.arange(240) % 8], axis=1)


def index_json(path: Path, codes: Any = CODES) -> Path:
    rows = {
        item: [f"<{'abcdefgh'[n]}_{code}>" for n, code in enumerate(row)] for item, row in zip(IDS, codes, strict=False)
    }
    path.write_text(json.dumps(rows, indent=1))
    return path


def lists(path: Path) -> Path:
    pl.DataFrame({"item_id": IDS[::-1], "codes": CODES[::-1].tolist()}).write_parquet(path)
    return path


def columns(path: Path) -> Path:
    pl.DataFrame({"item_id": IDS, **{f"code_{n}": CODES[:, n] for n in range(3)}}).write_csv(path)
    return path


@pytest.mark.parametrize(
    ("write", "name"),
    [(index_json, "x.index.json"), (lists, "x.parquet"), (columns, "x.csv")],
    ids=["json", "lists", "csv"],
)
def test_each_form_gives_the_same_codes(
    write: Callable[[Path], Path], name: str, tmp_path: Path, clustered: Make, small_config: Config
) -> None:
    config = small_config(codes=8, table=str(write(tmp_path / name)))
    found = quantize(config, clustered(), IDS, seed=0)
    assert (found.table.codes == CODES).all(), "unique tuples need no suffix"
    assert found.quality["method"] == "table" and found.quality["collisions"]["moved"] == 0
    assert len(digest(config)) == 64 and digest(small_config()) == ""


def test_a_code_table_of_this_project_is_one(tmp_path: Path, clustered: Make, small_config: Config) -> None:
    first = quantize(small_config(collisions="reassign"), clustered(), IDS, seed=0)
    first.table.save(tmp_path / "codes.parquet")
    again = quantize(small_config(table=str(tmp_path / "codes.parquet")), clustered(), IDS, seed=1)
    assert (again.table.codes == first.table.codes).all()


@pytest.mark.parametrize("collisions", ["suffix", "reassign"])
def test_tuples_that_are_shared_are_told_apart_as_the_setting_says(
    collisions: str, tmp_path: Path, clustered: Make, small_config: Config
) -> None:
    codes = CODES.copy()
    codes[1::2] = codes[::2]
    config = small_config(codes=8, collisions=collisions, table=str(index_json(tmp_path / "x.json", codes)))
    found = quantize(config, clustered(), IDS, seed=0)
    assert found.table.codes.shape == (240, 4 if collisions == "suffix" else 3)
    assert len(np.unique(found.table.codes, axis=0)) == 240
    assert found.quality["collisions"]["before"]["items"] == 240


def test_new_items_get_codes_that_items_have(tmp_path: Path, clustered: Make, small_config: Config) -> None:
    embeddings = clustered()
    config = small_config(codes=64, table=str(index_json(tmp_path / "x.json", CODES * 3)))
    found = with_new(
        quantize(config, embeddings, IDS, seed=0), config, embeddings[:5] + 0.01, [f"n{n}" for n in range(5)]
    )
    assert found.new_items is not None and found.new_items.codes.shape == (5, 3)
    found.save(tmp_path / "kept")
    again = fitted_quantizer(Quantized.load(tmp_path / "kept")).encode(embeddings)
    assert (again % 3 == 0).all(), "a code that no item has means nothing"
    every = found.all_items().codes
    assert len(np.unique(every, axis=0)) == len(every)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"i0": ["<a_1>", "<b_2>"]}', "239 of 240 items have no codes: i1, i2, i3, … (it has ids like i0)"),
        ('{"i0": ["<a_1>"], "i1": ["<a_1>", "<b_2>"]}', "i1 has 2 codes, and i0 has 1"),
        ('{"i0": []}', "i0 has 0 codes"),
        ('{"i0": "<a_1>"}', "i0 has no list of codes but <a_1>"),
        ('{"i0": ["<a_1>"], "i1": ["<b_1>"]}', "i1 holds what is no code of level 0: <b_1>"),
        ('{"i0": [1.5]}', "no code of level 0"),
        ('{"i0": [true]}', "no code of level 0"),
        ('{"i0": [70000]}', "no code of level 0"),
        ('{"i0": [1], "i0": [2]}', "the key i0 stands there twice"),
        ("{}", "it holds no items"),
        ("[]", "holds no object"),
    ],
)
def test_an_index_that_cannot_be_used_is_told(tmp_path: Path, small_config: Config, text: str, said: str) -> None:
    path = tmp_path / "x.index.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        given_codes(small_config(table=str(path)), IDS)
    assert said in str(caught.value).replace("'", "") and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({"item_id": IDS}, "its columns are item_id"),
        ({"item_id": IDS, "code_1": [1] * 240}, "its columns are"),
        ({"item_id": IDS, "codes": ["1 2"] * 240}, "the column codes is String"),
        ({"item_id": IDS, "codes": [[1, -2]] * 240}, "the column codes holds what is no code"),
        ({"item_id": IDS, "codes": [[1, None]] * 240}, "holds what is no code"),
        ({"item_id": IDS, "codes": [[1, 2]] * 239 + [[1]]}, "i239 has 1 codes, and i0 has 2"),
        ({"item_id": IDS, "codes": [[1, 2]] * 239 + [None]}, "i239 has 0 codes"),
        ({"item_id": ["i0"] * 240, "code_0": [1] * 240}, "the item i0 stands there twice"),
        ({"item_id": IDS, "code_0": [9] * 240, "code_1": [70] * 240}, "Set quantize.levels=2 and quantize.codes=71"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(
    tmp_path: Path, small_config: Config, frame: dict[str, Any], said: str
) -> None:
    path = tmp_path / "x.parquet"
    pl.DataFrame(frame).write_parquet(path)
    with pytest.raises(UserError) as caught:
        given_codes(small_config(table=str(path)), IDS)
    assert said in str(caught.value).replace("'", "") and str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_told(small_config: Config) -> None:
    with pytest.raises(UserError, match="no such file"):
        digest(small_config(table="/nowhere/x.parquet"))
