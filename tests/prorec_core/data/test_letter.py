"""What no JSON of histories or texts may hold is one line that names the file, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from prorec_core.config_data import DataConfig
from prorec_core.data.letter import letter
from prorec_core.errors import UserError

DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("log", "stock", "told"),
    [
        (f'{{"u": [1, {DIGITS}]}}', "{}", "x.inter.json: it holds a number of thousands of digits"),
        ("{}", f'{{"1": {{"title": "a", "price": {"9" * 30}}}}}', "x.item.json: the item '1' has a value"),
        ('{"u": ["\\ud800"]}', "{}", "x.inter.json: what stands under the key 'u' is no text"),
        ('{"\\udc00": ["a"]}', "{}", r"x.inter.json: what stands under the key '\udc00' is no text"),
        ("{}", '{"1": {"\\ud800": "b"}}', "x.item.json: what stands under the key '1' is no text"),
    ],
)
def test_what_cannot_be_kept_is_one_line(log: str, stock: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.inter.json").write_text(log)
    (tmp_path / "x.item.json").write_text(stock)
    source = letter(DataConfig(source="letter", path=str(tmp_path)))
    with pytest.raises(UserError) as caught:
        source.interactions()
        source.items()
    assert told in str(caught.value) and str(caught.value).isprintable()


def test_what_is_no_utf_8_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "x.inter.json").write_bytes(b'{"\xff": ["a"]}')
    (tmp_path / "x.item.json").write_text("{}")
    with pytest.raises(UserError, match=r"x.inter.json: the file cannot be read \('utf-8' codec"):
        letter(DataConfig(source="letter", path=str(tmp_path))).interactions()


def test_pairs_of_surrogates_and_large_ids_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.inter.json").write_text(f'{{"\\ud83d\\ude00": [{"9" * 30}, "\\\\ud800"]}}')
    (tmp_path / "x.item.json").write_text("{}")
    found = letter(DataConfig(source="letter", path=str(tmp_path))).interactions().collect("user_id", "item_id")
    assert found.rows() == [("😀", "9" * 30), ("😀", "\\ud800")]
