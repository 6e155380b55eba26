"""What is guessed of data, and that the experiment it prints runs."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from prorec_core.config_data import DataConfig
from prorec_core.data.peek.look import Seen, look
from prorec_core.data.peek.roles import guess_times, roles_of, suspicious_times
from prorec_core.data.stage import preprocess
from prorec_core.errors import UserError
from tests.prorec_core.data.test_formats import saved
from tests.prorec_core.data.test_published import ITEMS, KINDS, LOG, USERS


def shop(folder: Path, times: str = "{0}", item: str = "sku") -> Path:
    rows = [f"c{u},{i},{times.format(1_700_000_000 + 86_400 * s)}" for u in range(8) for i, s in _six(u)]
    folder.mkdir(exist_ok=True)
    (folder / "orders 2024.csv.gz").write_bytes(
        gzip.compress("\n".join(["Customer ID,sku,ordered_at", *rows]).encode())
    )
    (folder / "stock.csv").write_text(f"{item},name,brand\n" + "".join(f"{i},N{i},b\n" for i in range(6)))
    return folder


def _six(user: int) -> list[tuple[int, int]]:
    return [((user + step) % 6, step) for step in range(6)]


def found(folder: Path) -> str:
    seen = look(str(folder))
    return " | ".join([seen.layout, *seen.notes, seen.problem])


def test_what_is_printed_runs(tmp_path: Path) -> None:
    seen = look(str(shop(tmp_path / "My Shop!")))
    assert not seen.problem and seen.values["name"] == "my-shop"
    data = seen.values["data"]
    assert (data["user_column"], data["item_column"], data["timestamp_column"]) == ("Customer ID", "sku", "ordered_at")
    assert data["timestamp_format"] == "seconds" and data["text_columns"] == ["name", "brand"]
    assert preprocess(DataConfig(**data)).profile["filters"] == seen.profile["filters"]
    assert [(table.name, table.guess, table.rows) for table in seen.tables] == [
        ("orders 2024.csv.gz", "interactions", 48),
        ("stock.csv", "items", 6),
    ]
    told = " ".join(seen.notes)
    assert "from 2023-11-14" in told and "0 of 48 interactions repeat" in told and "0 items of the interactions" in told


def test_ids_that_do_not_meet_are_told_and_the_yaml_is_there(tmp_path: Path) -> None:
    folder = shop(tmp_path)
    (folder / "stock.csv").write_text("sku,name,brand\n" + "".join(f"00{i},N{i},b\n" for i in range(6)))
    seen = look(str(folder))
    assert "data.similar_ids" in seen.problem and seen.values["data"]["source"] == "tables" and not seen.profile


def test_names_that_differ_and_tables_that_are_not_two_are_told(tmp_path: Path) -> None:
    assert "'sku' in orders 2024.csv.gz and 'product_id' in stock.csv" in found(shop(tmp_path / "a", item="product_id"))
    folder = shop(tmp_path / "b")
    (folder / "more.csv").write_text("user,item\n1,2\n")
    assert "2 that could be interactions, and 1 that could be items" in found(folder)
    (tmp_path / "empty").mkdir()
    assert "no file of a known format" in found(tmp_path / "empty")
    with pytest.raises(UserError, match="no such file or folder"):
        look(str(tmp_path / "nothing"))


def test_columns_of_names_that_nobody_knows_are_left_to_be_filled_in(tmp_path: Path) -> None:
    rows = "".join(f"k{n % 7},s{n % 5},{n},5\n" for n in range(60))
    (tmp_path / "interactions.csv").write_text("kunde,sku,zeit,sterne\n" + rows)
    (tmp_path / "items.csv").write_text("sku,name,preis\n" + "".join(f"s{n},N{n},1\n" for n in range(5)))
    seen = look(str(tmp_path))
    assert seen.layout == "tables, by the names of the files" and not seen.profile
    assert "is known for user_column, timestamp_column: write in place of ?" in seen.problem
    guesses = {(table.name, each.name): each.guess for table in seen.tables for each in table.columns if each.guess}
    known = {("interactions.csv", "sku"): "the item's id", ("items.csv", "sku"): "the item's id"}
    assert guesses == {**known, ("items.csv", "name"): "text"}
    left = {"user_column": "kunde", "timestamp_column": "zeit", "min_user_interactions": 3}
    assert seen.values["data"]["user_column"] == "?"
    (tmp_path / "items.csv").write_text("item,name\n1,N\n")
    assert "'sku' in interactions.csv and 'item' in items.csv: give both one name" in look(str(tmp_path)).layout
    (tmp_path / "items.csv").write_text("sku,name\n" + "".join(f"s{n},N{n}\n" for n in range(5)))
    filled = DataConfig.model_validate({**seen.values["data"], **left})
    assert preprocess(filled).profile["kept"]["users"] == 7


def test_every_run_tells_of_odd_times_and_peek_tells_them_once(tmp_path: Path) -> None:
    rows = "".join(f"u{n % 7},i{n % 5},{'1970-01-01' if n < 7 else f'2024-01-01 10:00:{n:02}'}\n" for n in range(60))
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + rows)
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},N{n}\n" for n in range(5)))
    config = DataConfig(source="tables", path=str(tmp_path), text_columns=["title"])
    (told,) = preprocess(config).profile["warnings"]
    assert told.startswith("7 of 60 interactions have a time before 1990, the first 1970-01-01")
    assert [text for text in look(str(tmp_path)).notes if "before 1990" in text] == ["7 times are before 1990"]


def test_one_stray_file_ends_nothing_and_is_told(tmp_path: Path) -> None:
    folder = shop(tmp_path / "a")
    (folder / "notes.parquet").write_bytes(b"x")
    seen = look(str(folder))
    assert seen.profile and seen.notes[0].startswith(f"passed over: {folder / 'notes.parquet'}: ")
    (folder / "stock.csv").unlink()
    (folder / "more.csv").write_bytes(b"user,item\n\xff\xfe,1\n")
    seen = look(str(folder))
    assert [table.name for table in seen.tables] == ["orders 2024.csv.gz"] and len(seen.notes) == 2, seen.notes


@pytest.mark.parametrize("kind", ["2014", "1m", "steam", "m2", "letter", "hm"])
def test_published_data_sets_are_known_by_their_files(kind: str, tmp_path: Path) -> None:
    source, write, _, _ = KINDS[kind]
    write(tmp_path)
    seen: Seen = look(str(tmp_path))
    assert seen.values["data"]["source"] == source
    data = {**seen.values["data"], "min_user_interactions": 3, "min_item_interactions": 1}
    kept = preprocess(DataConfig(**data)).profile["kept"]
    assert kept == {"users": USERS, "items": ITEMS, "interactions": len(LOG)}


def test_a_file_alone_and_a_folder_of_datasets(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop")
    seen = look(str(folder / "orders 2024.csv.gz"))
    assert not seen.values and "one file alone" in seen.notes[-1] and "as seconds since 1970" in seen.notes[0]
    assert "the time" in {column.guess for column in seen.tables[0].columns}
    seen = look(str(saved(tmp_path / "train", 2)))
    assert seen.tables[0].rows == 32 and seen.tables[0].guess == "interactions"
    (folder / "meta.json").write_text("{'asin': 'a', 'title': 't', 'rank': {'b': 1}}\n")
    seen = look(str(folder / "meta.json"))
    assert "holds an object" in {column.name: column.guess for column in seen.tables[0].columns}["rank"]


@pytest.mark.parametrize(
    ("values", "form", "words"),
    [
        ([1_700_000_000, 1_600_000_000], "seconds", "seconds since"),
        ([1_700_000_000_000], "milliseconds", "milliseconds since"),
        (["1700000000"], "seconds", "seconds since"),
        ([0, 1, 2], None, "too small"),
        (["20240131"], "%Y%m%d", "%Y%m%d"),
        (["31.12.2024"], "%d.%m.%Y", "%d.%m.%Y"),
        (["12/31/2024"], "%m/%d/%Y", "%m/%d/%Y"),
        (["01/02/2024"], "%m/%d/%Y", "or as %d/%m/%Y, which its first values do not decide"),
        (["Fri Aug 25 13:55:02 -0700 2017"], "%a %b %d %H:%M:%S %z %Y", "%z"),
        (["2024-01-31T10:00:00Z"], None, "ISO 8601"),
        (["soon"], None, "ISO 8601"),
        ([True], None, "which no time has"),
        ([None], None, "no values"),
    ],
)
def test_how_times_are_written(values: list[Any], form: str | None, words: str) -> None:
    guess = guess_times(pl.Series(values))
    assert guess.format == form and words in guess.words


def test_what_is_odd_of_times() -> None:
    assert suspicious_times(pl.Series([5, 5]), "as given") == ["all times are the same"]
    odd = suspicious_times(pl.Series([0, 86_400, 99_999_999_999]), "seconds")
    assert [each.split(" times")[0] for each in odd] == ["2", "1"]
    assert "whole days" in suspicious_times(pl.Series([1_700_006_400, 1_700_092_800]), "seconds")[0]


def test_roles_are_those_of_the_likeliest_names() -> None:
    roles = roles_of(["id", "Title", "user", "itemId", "event_time", "stars"])
    assert (roles.user, roles.item, roles.time, roles.rating) == ("user", "itemId", "event_time", "stars")
    assert roles.kind == "interactions" and roles_of(["id", "name"]).kind == "items" and roles_of(["a"]).kind == ""
