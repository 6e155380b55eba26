from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.config_data import DataConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.formats import TextRules
from prorec_core.data.histories import Columns, FileHistories
from prorec_core.data.stage import preprocess, source_digest
from prorec_core.errors import UserError

WIDE = '7" wide'
SUFFIXES = ["csv", "tsv", "jsonl", "ndjson", "parquet"]
WRITERS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    "csv": lambda frame, path: frame.write_csv(path),
    "tsv": lambda frame, path: frame.write_csv(path, separator="\t"),
    "jsonl": lambda frame, path: path.write_bytes(frame.write_ndjson().encode()),
    "ndjson": lambda frame, path: path.write_bytes(frame.write_ndjson().encode()),
    "parquet": lambda frame, path: path.write_bytes(parquet(frame)),
}


def parquet(frame: pl.DataFrame) -> bytes:
    import io

    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def write(frame: pl.DataFrame, path: Path) -> Path:
    WRITERS[path.suffix[1:].lower()](frame, path)
    return path


def shop(folder: Path, users: int = 8, suffix: str = "csv", names: tuple[str, str] = ("interactions", "items")) -> Path:
    log = [(f"u{user}", f"i{(user + step) % 6}", step) for user in range(users) for step in range(4)]
    frame = pl.DataFrame(log, schema=["user_id", "item_id", "timestamp"], orient="row")
    folder.mkdir(exist_ok=True)
    write(frame, folder / f"{names[0]}.{suffix}")
    items = {"item_id": [f"i{n}" for n in range(6)], "title": [f"T{n}" for n in range(6)], "categories": ["c"] * 6}
    write(pl.DataFrame(items), folder / f"{names[1]}.{suffix}")
    return folder


def config(path: Path | str, **changes: Any) -> DataConfig:
    small = {"source": "tables", "path": str(path), "min_user_interactions": 3, "min_item_interactions": 1}
    return DataConfig(**{**small, **changes})


def read(dataset: Dataset) -> tuple[int, int]:
    """Interactions counted before any filter, and users left."""
    return dataset.profile["filters"][0]["before"]["interactions"], dataset.users.height


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["shop[1]", "shop[!x]", "shop?", "shop*", "sh**", "{shop1,x}", "a b%20", "ключ", "~"])
def test_a_folder_is_the_one_that_is_named(tmp_path: Path, suffix: str, name: str) -> None:
    for decoy in ("shop1", "shopx", "shx"):
        shop(tmp_path / decoy, 3, suffix)
    folder = shop(tmp_path / name, 8, suffix)
    assert read(preprocess(config(folder))) == (32, 8)
    assert source_digest(config(folder)) == source_digest(config(shop(tmp_path / "copy", 8, suffix)))
    assert source_digest(config(folder)) != source_digest(config(tmp_path / "shop1"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["log[1]", "log?", "*", "^l.*$", "a:b", "x" * 240, "-", " ", "a\\b"])
def test_files_are_those_that_are_named(tmp_path: Path, suffix: str, name: str) -> None:
    for decoy in ("log1", "logx"):
        shop(tmp_path, 3, suffix, (decoy, "decoy"))
    shop(tmp_path, 8, suffix, (name, "stock" + name[:200]))
    files = {"interactions_file": f"{name}.{suffix}", "items_file": f"stock{name[:200]}.{suffix}"}
    assert read(preprocess(config(tmp_path, **files))) == (32, 8)


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0/"), min_size=1, max_size=12))
def test_any_name_of_a_folder_and_a_file(tmp_path_factory: Any, name: str) -> None:
    base = tmp_path_factory.mktemp("names")
    folder = base / f"{name}x"
    shop(folder, 8, "csv", (f"log{name}", f"stock{name}"))
    files = {"interactions_file": f"log{name}.csv", "items_file": f"stock{name}.csv"}
    assert read(preprocess(config(folder, **files))) == (32, 8)


def test_a_home_folder_and_a_folder_with_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shop(tmp_path / "~", 3)
    (tmp_path / "home").mkdir()
    shop(tmp_path / "home" / "data", 8)
    shop(tmp_path / "~nobody-of-this-name", 5)
    assert read(preprocess(config("~/data"))) == (32, 8)
    assert read(preprocess(config("./~"))) == (12, 3)
    assert read(preprocess(config("~nobody-of-this-name"))) == (20, 5)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://bucket/shop", "data.path=s3://bucket/shop: URLs are not read"),
        ("file:///data/shop", "URLs are not read"),
        ("x" * 300, "File name too long"),
        ("~nobody-of-this-name/shop", "there is no such folder"),
    ],
)
def test_folders_that_are_none_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        preprocess(config(path))


def test_a_file_for_a_folder_and_names_that_no_file_can_have(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop")
    with pytest.raises(UserError, match="this is a file and no folder"):
        preprocess(config(folder / "items.csv"))
    for name, said in (("x" * 300 + ".csv", "File name too long"), ("items", "kind")):
        with pytest.raises(UserError, match=said):
            preprocess(config(folder, items_file=name))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("names", [("^u.*$", "*", "^.*$"), ("user.id", "item.id", "a|b"), (" user", "item ", '"t"')])
def test_columns_have_literal_names(tmp_path: Path, suffix: str, names: tuple[str, str, str]) -> None:
    user, item, title = names
    folder = shop(tmp_path / "shop", 8, "parquet")
    log, items = (pl.read_parquet(folder / f"{name}.parquet") for name in ("interactions", "items"))
    log = log.with_columns(pl.lit("decoy").alias("u1"), pl.lit("decoy").alias("user"))
    (folder / "interactions.parquet").unlink(), (folder / "items.parquet").unlink()
    write(log.rename({"user_id": user, "item_id": item}), folder / f"interactions.{suffix}")
    write(items.rename({"item_id": item, "title": title}), folder / f"items.{suffix}")
    found = preprocess(config(folder, user_column=user, item_column=item, text_columns=[title, "categories"]))
    assert read(found) == (32, 8) and found.items["text"].to_list() == [f"T{n}. c" for n in range(6)]


def test_stray_quotes_in_a_column_that_nobody_reads_lose_no_row(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop", 40)
    lines = (folder / "interactions.csv").read_text().splitlines()
    noted = [f"{line},{WIDE if n in {30, 90} else 'ok'}" for n, line in enumerate(lines)]
    (folder / "interactions.csv").write_text("\n".join(noted))
    assert read(preprocess(config(folder))) == (160, 40)
    noted[20], noted[30] = noted[20].replace(",ok", ',"ok'), noted[30].replace(",7", ',"7')
    (folder / "interactions.csv").write_text("\n".join(noted))
    with pytest.raises(UserError, match=r"line 31: a quoted field, which began in line 21, goes on"):
        preprocess(config(folder))
    assert read(preprocess(config(folder, quotes=False))) == (160, 40)
    noted[30] = lines[30] + ',ok"'
    (folder / "interactions.csv").write_text("\n".join(noted))
    with pytest.raises(UserError, match=r"line 22 lies in a quoted field that begins in line 21.*data.multiline=true"):
        preprocess(config(folder))
    assert read(preprocess(config(folder, multiline=True)))[0] == 150


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_value_that_cannot_be_used_is_named_by_its_line(tmp_path: Path, suffix: str) -> None:
    folder = shop(tmp_path / "shop", 8, suffix)
    path = folder / f"interactions.{suffix}"
    lines = path.read_text().splitlines()
    header = suffix == "csv"
    lines[header + 4] = lines[header + 4].replace("u1", "")
    path.write_text("\n\n" + "\n".join(lines))
    with pytest.raises(UserError, match=f"column 'user_id' has no id in line {2 + header + 5}"):
        preprocess(config(folder))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["carts[1]", "carts?", "*"])
def test_users_of_a_batch_come_from_the_file_that_is_named(tmp_path: Path, suffix: str, name: str) -> None:
    carts = {"user_id": [f"u{n}" for n in range(40)], "history": ["a,b"] * 40}
    write(pl.DataFrame(carts).head(3), tmp_path / f"carts1.{suffix}")
    write(pl.DataFrame(carts).head(3), tmp_path / f"cartsx.{suffix}")
    assert FileHistories(write(pl.DataFrame(carts), tmp_path / f"{name}.{suffix}")).n_users == 40


def test_users_of_a_batch_are_not_lost_to_quotes(tmp_path: Path) -> None:
    path = tmp_path / "carts.csv"
    rows = [f"u{n},a,{n},{WIDE if n in {9, 30} else '-'}" for n in range(40)]
    path.write_text("\n".join(["user_id,item_id,timestamp,note", *rows]))
    assert FileHistories(path).n_users == 40
    path.write_text("\n".join(["user_id,item_id,timestamp,note", *rows[:9], 'u9,a,9,"x', *rows[10:12], 'u12,a,1,y"']))
    with pytest.raises(UserError, match=r"line 12 lies in a quoted field .*--multiline"):
        _ = FileHistories(path, Columns(), TextRules(True, False, "--no-quotes", "--multiline")).n_users
    with pytest.raises(UserError, match="there is no column"):
        _ = FileHistories(path, Columns(user="^u.*$")).n_users
