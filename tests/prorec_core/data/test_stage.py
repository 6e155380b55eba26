from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prorec_core.config_data import DataConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.stage import preprocess, source_digest
from prorec_core.errors import UserError
from prorec_core.progress import Progress

Row = tuple[str, str, int]

# Users a, b and c take x, y and z; d takes too little; w is rare; q is in no items file.
LOG: list[Row] = [
    *[(user, item, 10) for item in "zxy" for user in "abc"],
    ("a", "q", 11),
    ("a", "x", 10),
    ("d", "x", 1),
    ("b", "w", 9),
]
ITEMS: list[dict[str, Any]] = [
    {"item_id": "x", "title": "Ring &amp; Box", "categories": ["Gifts", "Rings"]},
    {"item_id": "y", "title": "  Pen  ", "categories": []},
    {"item_id": "z", "title": None, "categories": None},
    {"item_id": "w", "title": "Wig", "categories": ["Hair"]},
    {"item_id": "unsold", "title": "", "categories": []},
]


def write(frame: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix in {".jsonl", ".ndjson"}:
        frame.write_ndjson(path)
    else:
        lists = [pl.col(name).list.join(", ") for name, dtype in frame.schema.items() if dtype == pl.List]
        frame.with_columns(lists).write_csv(path, separator="\t" if path.suffix != ".csv" else ",")


def shop(folder: Path, log: list[Row] = LOG, items: list[dict[str, Any]] = ITEMS, suffix: str = "parquet") -> Path:
    write(
        pl.DataFrame(log, schema=["user_id", "item_id", "timestamp"], orient="row"), folder / f"interactions.{suffix}"
    )
    write(pl.DataFrame(items), folder / f"items.{suffix}")
    return folder


def config(folder: Path, **changes: Any) -> DataConfig:
    small = {"source": "tables", "path": str(folder), "min_user_interactions": 3, "min_item_interactions": 3}
    return DataConfig(**{**small, **changes})


def histories(dataset: Dataset) -> dict[str, list[str]]:
    ids = dataset.items["item_id"].to_list()
    return {
        user: [ids[item] for item in dataset.sequences.of_user(index)]
        for index, user in enumerate(dataset.users["user_id"])
    }


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl", "ndjson"])
def test_every_format_gives_the_same_data(tmp_path: Path, suffix: str) -> None:
    steps: list[Progress] = []
    dataset = preprocess(config(shop(tmp_path, suffix=suffix)), steps.append)
    assert histories(dataset) == {user: ["z", "x", "y"] for user in "abc"}
    assert dataset.items["item_id"].to_list() == ["x", "y", "z"]
    assert dataset.items["text"].to_list() == ["Ring & Box. Gifts, Rings", "Pen", "z"]
    assert dataset.items["title"].to_list() == ["Ring & Box", "Pen", "z"]
    assert dataset.items["train_count"].to_list() == [0, 0, 3]
    assert dataset.timestamps.tolist() == [10] * 9
    assert dataset.profile["ties"]["share"] == 1.0
    assert [(step.step, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_atomic_files(tmp_path: Path) -> None:
    names = {"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"}
    frame = pl.DataFrame(LOG, schema=["user_id", "item_id", "timestamp"], orient="row").cast({"timestamp": pl.Float64})
    write(frame.rename(names), tmp_path / "toy.inter")
    (tmp_path / "toy.item").write_text('item_id:token\tname:token_seq\nx\tThe "Ring\ny\tPen\nz\tBox\nw\tWig\n')
    dataset = preprocess(config(tmp_path, source="recbole", text_columns=["name"]))
    assert histories(dataset) == {user: ["z", "x", "y"] for user in "abc"}
    assert dataset.items["text"].to_list() == ['The "Ring', "Pen", "Box"]
    assert dataset.timestamps.tolist() == [10] * 9 and dataset.profile["timestamp_unit"] == "seconds"


def test_profile_counts_every_filter(tmp_path: Path) -> None:
    profile = preprocess(config(shop(tmp_path))).profile
    rows = {
        step["filter"]: (step["before"]["interactions"], step["after"]["interactions"]) for step in profile["filters"]
    }
    assert rows == {"unknown_items": (13, 12), "duplicates": (12, 11), "k_core": (11, 9)}
    assert profile["filters"][-1]["after"] == profile["kept"] == {"users": 3, "items": 3, "interactions": 9}
    assert profile["policies"] == {
        "unknown_items": {"policy": "drop", "items": 1, "interactions": 1},
        "items_without_text": {"policy": "keep", "items": 1, "interactions": 3},
        "duplicates": {"policy": "exact", "interactions": 1},
    }
    assert profile["history_length"]["mean"] == 3


def test_unknown_items_may_stay(tmp_path: Path) -> None:
    dataset = preprocess(config(shop(tmp_path), unknown_items="keep", min_item_interactions=1))
    assert dataset.items.filter(item_id="q")["text"].to_list() == ["q"]
    assert histories(dataset)["a"] == ["z", "x", "y", "q"]


def test_items_without_text_may_go(tmp_path: Path) -> None:
    log = [(user, item, time) for user in "abc" for time, item in enumerate("wxyz")]
    dataset = preprocess(config(shop(tmp_path, log), items_without_text="drop"))
    assert dataset.items["item_id"].to_list() == ["w", "x", "y"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unknown_items": "error"}, "the item 'q' has interactions but is not in the items file"),
        ({"items_without_text": "error"}, "the item 'z' has no text"),
    ],
)
def test_policies_may_stop(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        preprocess(config(shop(tmp_path), **changes))


def test_low_ratings_are_left_out(tmp_path: Path) -> None:
    shop(tmp_path)
    frame = pl.DataFrame(LOG, schema=["user_id", "item_id", "timestamp"], orient="row")
    rated = frame.with_columns(stars=pl.when(pl.col("user_id") == "c").then(2.0).otherwise(4.0))
    write(rated, tmp_path / "interactions.parquet")
    chosen = config(tmp_path, rating_column="stars", min_rating=3, min_item_interactions=2)
    dataset = preprocess(chosen)
    assert sorted(histories(dataset)) == ["a", "b"]
    assert dataset.profile["filters"][0] == {
        "filter": "rating",
        "setting": "data.min_rating",
        "before": {"users": 4, "items": 5, "interactions": 13},
        "after": {"users": 3, "items": 5, "interactions": 10},
    }


def test_interactions_without_a_rating_are_told_apart_from_low_ones(tmp_path: Path) -> None:
    shop(tmp_path)
    frame = pl.DataFrame(LOG, schema=["user_id", "item_id", "timestamp"], orient="row")
    rated = frame.with_columns(stars=pl.when(pl.col("user_id") == "c").then(None).otherwise(4.0))
    write(rated, tmp_path / "interactions.parquet")
    chosen = config(tmp_path, rating_column="stars", min_rating=3, min_item_interactions=2)
    (told,) = [each for each in preprocess(chosen).profile["warnings"] if "rating" in each]
    assert told.endswith(
        ": 3 interactions have no rating in column 'stars' and are left out with those below data.min_rating"
    )


def test_without_times_the_file_is_in_order(tmp_path: Path) -> None:
    dataset = preprocess(config(shop(tmp_path, LOG[::-1]), timestamp_column=None, duplicates="first"))
    assert histories(dataset)["a"] == ["x", "y", "z"]
    assert dataset.profile["timestamp_unit"] == "row of the file" and dataset.profile["ties"]["share"] == 0


def test_ties_may_be_shuffled(tmp_path: Path) -> None:
    log = [(user, f"i{item:02d}", 0) for user in "abc" for item in range(20)]
    items = [{"item_id": f"i{item:02d}", "title": "t", "categories": ["c"]} for item in range(20)]
    shop(tmp_path, log, items)
    first, again, other = (
        histories(preprocess(config(tmp_path, ties="shuffle", ties_seed=seed))) for seed in (1, 1, 2)
    )
    assert first == again != other and first != histories(preprocess(config(tmp_path)))


def test_rows_in_another_order_give_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    log = [(user, item, time) for user in "bca" for time, item in enumerate("zxy")]
    one, two = (preprocess(config(shop(tmp_path / name, rows))) for name, rows in (("a", log), ("b", log[::-1])))
    assert one.items.equals(two.items) and one.users.equals(two.users)
    assert one.sequences.items.tolist() == two.sequences.items.tolist()


def test_digest_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        shop(tmp_path / name)
    digest = source_digest(config(tmp_path / "a"))
    assert digest == source_digest(config(tmp_path / "b"))
    shop(tmp_path / "b", LOG[1:])
    assert digest != source_digest(config(tmp_path / "b"))
    assert source_digest(DataConfig()) != source_digest(DataConfig(demo={"seed": 8}))


def break_nothing(folder: Path) -> None:
    pass


def no_items(folder: Path) -> None:
    (folder / "items.parquet").unlink()


def two_items_files(folder: Path) -> None:
    (folder / "items.csv").write_text("item_id,title,categories\n")


def torn(folder: Path) -> None:
    file = folder / "interactions.parquet"
    file.write_bytes(file.read_bytes()[:50])


def empty_csv(folder: Path) -> None:
    (folder / "interactions.parquet").unlink()
    (folder / "interactions.csv").write_text("")


def header_only(folder: Path) -> None:
    (folder / "interactions.parquet").unlink()
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n")


def item_twice(folder: Path) -> None:
    write(pl.DataFrame([*ITEMS, ITEMS[0]]), folder / "items.parquet")


def latin(folder: Path) -> None:
    (folder / "items.parquet").unlink()
    (folder / "items.csv").write_bytes("item_id,title,categories\nx,caf\u00e9,c\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("spoil", "changes", "place", "said"),
    [
        (break_nothing, {"path": None}, "data.path", "needs a folder"),
        (break_nothing, {"path": "nowhere"}, "nowhere", "no such folder"),
        (break_nothing, {"source": "recbole"}, "", "there is no file *.inter"),
        (break_nothing, {"items_file": "stock.csv"}, "stock.csv", "items.parquet"),
        (break_nothing, {"items_file": "stock.xlsx"}, "stock.xlsx", "is not read here"),
        (no_items, {}, "", "data.items_file"),
        (two_items_files, {}, "", "items.csv, items.parquet"),
        (torn, {}, "interactions.parquet", "cannot be read"),
        (empty_csv, {}, "interactions.csv", "the file holds no column names"),
        (header_only, {}, "interactions.csv", "holds no interactions"),
        (latin, {}, "items.csv", "line 2 is not UTF-8"),
        (item_twice, {}, "items.parquet", "'x' stands there more than once"),
        (break_nothing, {"user_column": "user"}, "interactions.parquet", "nearest: 'user_id'"),
        (break_nothing, {"text_columns": ["name"]}, "items.parquet", "item_id, title, categories"),
        (
            break_nothing,
            {"user_column": "timestamp", "timestamp_column": "user_id"},
            "interactions.parquet",
            "in row 1: 'a'",
        ),
        (break_nothing, {"min_user_interactions": 9}, "interactions.parquet", "k_core took 11"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, spoil: Any, changes: dict[str, Any], place: str, said: str
) -> None:
    spoil(shop(tmp_path))
    with pytest.raises(UserError) as caught:
        preprocess(config(tmp_path, **changes))
    message = str(caught.value)
    assert place in message and said in message and "\n" not in message


def test_amazon_beauty_is_a_core_already(beauty_folder: Path) -> None:
    dataset = preprocess(DataConfig(source="tables", path=str(beauty_folder)))
    assert dataset.profile["kept"] == {"users": 22_363, "items": 12_101, "interactions": 198_502}
    raw = pl.read_parquet(beauty_folder / "interactions.parquet").filter(user_id="u1")
    assert histories(dataset)["u1"] == raw["item_id"].to_list()
    assert not dataset.items["text"].str.contains("&amp;").any()


def test_movielens_keeps_the_order_of_the_file_within_a_second(ml_100k_folder: Path) -> None:
    columns = ["movie_title", "release_year", "class"]
    dataset = preprocess(DataConfig(source="recbole", path=str(ml_100k_folder), text_columns=columns))
    assert dataset.profile["kept"] == {"users": 943, "items": 1_349, "interactions": 99_287}
    assert dataset.profile["ties"]["share"] > 0.5
    raw = pl.read_csv(ml_100k_folder / "ml-100k.inter", separator="\t", infer_schema=False)
    raw.columns = ["user_id", "item_id", "rating", "timestamp"]
    kept = raw.filter(pl.col("user_id") == "196", pl.col("item_id").is_in(dataset.items["item_id"].to_list()))
    by_time = sorted(kept.rows(), key=lambda row: int(row[3]))
    assert histories(dataset)["196"] == [row[1] for row in by_time]
    assert "Toy Story. 1995. Animation Children's Comedy" in dataset.items["text"].to_list()
    user = dataset.users["user_id"].to_list().index("196")
    start, end = dataset.sequences.offsets[user : user + 2]
    assert dataset.timestamps[start:end].tolist() == [int(row[3]) for row in by_time]
    assert np.all(np.diff(dataset.timestamps[start:end]) >= 0)


def rows_of(items: list[str], users: str = "abc") -> list[Row]:
    return [(user, item, time) for user in users for time, item in enumerate(items)]


def stock(*ids: Any) -> list[dict[str, Any]]:
    return [{"item_id": each, "title": f"Thing {each}", "categories": ["c"]} for each in ids]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    ("logged", "stocked"),
    [
        (["7.0", "8.0", "9.0"], ["7", "8", "9"]),
        (["7", "8", "9"], ["7.0", "8.0", "9.0"]),
        (["007", "8", "9"], ["7", "8", "9"]),
        (["7 ", "8", "9"], ["7", "8", "9"]),
        (["cafe\u0301", "8", "9"], ["caf\u00e9", "8", "9"]),
        (["sku-a", "8", "9"], ["SKU-A", "8", "9"]),
    ],
)
def test_ids_that_should_meet_are_shown_side_by_side(
    tmp_path: Path, suffix: str, logged: list[str], stocked: list[str]
) -> None:
    shop(tmp_path, rows_of(logged), stock(*stocked), suffix)
    with pytest.raises(UserError) as caught:
        preprocess(config(tmp_path))
    message = str(caught.value)
    met = len(set(logged) - set(stocked))
    assert f"interactions.{suffix}: {met} of 3 item ids ({met * 3} of 9 interactions) are in items.{suffix}" in message
    assert "here is '" in message and "data.similar_ids=same" in message and "unknown_items" not in message
    same = preprocess(config(tmp_path, similar_ids="same"))
    assert same.items["item_id"].to_list() == sorted(stocked) and same.items["text"][0].startswith("Thing ")
    assert same.profile["items_in_another_form"] == {"items": met, "interactions": met * 3}
    if met < 3:
        apart = preprocess(config(tmp_path, similar_ids="apart", unknown_items="keep"))
        assert apart.items["item_id"].to_list() == sorted(logged)


def test_numbers_of_different_types_are_shown_side_by_side(tmp_path: Path) -> None:
    shop(tmp_path, rows_of(["7", "8", "9"]), stock(7, 8, 9))
    log = pl.read_parquet(tmp_path / "interactions.parquet").cast({"item_id": pl.Float64})
    log.write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(UserError, match=r"type Float64, as '7.0' in row 1; items.parquet has '7'"):
        preprocess(config(tmp_path))
    log.cast({"item_id": pl.Int32}).write_parquet(tmp_path / "interactions.parquet")
    assert preprocess(config(tmp_path)).items["item_id"].to_list() == ["7", "8", "9"]


def test_where_nothing_meets_ids_of_both_files_are_shown(tmp_path: Path) -> None:
    shop(tmp_path, rows_of(["x1", "x2", "x3"]), stock("y1", "y2"))
    with pytest.raises(UserError) as caught:
        preprocess(config(tmp_path))
    assert "no item of the interactions is in items.parquet" in str(caught.value)
    assert "'x1'" in str(caught.value) and "'y1'" in str(caught.value) and "data.item_column" in str(caught.value)
    kept = preprocess(config(tmp_path, unknown_items="keep"))
    assert "100.0% of the interactions (9 of 9) are with 3 items" in kept.profile["warnings"][0]


@pytest.mark.parametrize(("unknown", "is_told"), [(1, False), (3, True)])
def test_many_unknown_items_are_told(tmp_path: Path, unknown: int, is_told: bool) -> None:
    shop(tmp_path, [*rows_of(list("xyz") * 11), *[("a", "q", time) for time in range(unknown)]], stock(*"xyz"))
    warnings = preprocess(config(tmp_path)).profile["warnings"]
    assert len(warnings) == is_told
    if is_told:
        assert f"2.9% of the interactions (3 of 102) are with 1 item that {tmp_path}" in warnings[0]
        assert "as 'q' (it has ids like 'x')" in warnings[0] and "data.unknown_items=drop" in warnings[0]


@pytest.mark.parametrize("policy", ["keep", "drop"])
@pytest.mark.parametrize(("silent", "is_told"), [(1, False), (3, True)])
def test_many_items_without_a_text_are_told(tmp_path: Path, policy: str, silent: int, is_told: bool) -> None:
    items = [*stock(*"xyz"), {"item_id": "q", "title": "", "categories": None}]
    shop(tmp_path, [*rows_of(list("xyz") * 11), *[("a", "q", time) for time in range(silent)]], items)
    warnings = preprocess(config(tmp_path, items_without_text=policy)).profile["warnings"]
    assert len(warnings) == is_told
    if is_told:
        assert f"2.9% of the interactions (3 of 102) are with 1 item of which {tmp_path}" in warnings[0]
        done = {"keep": "are kept, their ids standing for their texts", "drop": "are left out"}[policy]
        assert warnings[0].endswith(f"has no text, as 'q': they {done} (data.items_without_text={policy})")


def test_items_that_are_unknown_and_kept_are_told_once(tmp_path: Path) -> None:
    shop(tmp_path, [*rows_of(list("xyz")), *[("a", "q", time) for time in range(3)]], stock(*"xyz"))
    (told,) = preprocess(config(tmp_path, unknown_items="keep")).profile["warnings"]
    assert "lacks, as 'q'" in told and "data.unknown_items=keep" in told


def test_words_for_nothing_are_told_until_they_are_declared(tmp_path: Path) -> None:
    items = [*stock("x", "y"), {"item_id": "z", "title": "nan", "categories": ["NULL"]}]
    shop(tmp_path, [*rows_of(list("xyz")), ("None", "x", 1)], items)
    told = preprocess(config(tmp_path))
    assert len(told.profile["warnings"]) == 3 and all("data.missing" in text for text in told.profile["warnings"])
    assert told.items["text"].to_list()[2] == "nan. NULL"
    with pytest.raises(UserError, match="column 'user_id' has an id that counts as missing in row 10: 'None'"):
        preprocess(config(tmp_path, missing=["nan", "NULL", "None"]))
    declared = preprocess(config(tmp_path, missing=["nan", "NULL"]))
    assert declared.items["text"].to_list()[2] == declared.items["title"].to_list()[2] == "z"
    assert declared.profile["policies"]["items_without_text"]["items"] == 1
    with pytest.raises(UserError, match="the item 'z' has no text"):
        preprocess(config(tmp_path, missing=["nan", "NULL"], items_without_text="error"))


def test_dates_by_month_are_refused_and_read_as_declared(tmp_path: Path) -> None:
    shop(tmp_path, suffix="csv")
    lines = [f"{user},{item},{month:02d}/01/2024" for user in "abc" for month, item in enumerate("zxy", start=1)]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    with pytest.raises(UserError, match=r"no time in line 2: '01/01/2024'.*data\.timestamp_format"):
        preprocess(config(tmp_path))
    dataset = preprocess(config(tmp_path, timestamp_format="%m/%d/%Y"))
    assert histories(dataset) == {user: ["z", "x", "y"] for user in "abc"}
    assert np.diff(dataset.timestamps[:3]).tolist() == [31 * 86_400, 29 * 86_400]


def test_targets_that_were_taken_before_are_counted(tmp_path: Path) -> None:
    log = [
        *[("a", item, time) for time, item in enumerate("xyzx")],
        *[("b", item, time) for time, item in enumerate("xyxz")],
        *[("c", item, time) for time, item in enumerate("xyz")],
    ]
    profile = preprocess(config(shop(tmp_path, log), min_item_interactions=1)).profile
    assert profile["targets_in_history"] == {"validation": 1, "test": 1}
    once = preprocess(config(tmp_path, min_item_interactions=1, duplicates="first"))
    assert once.profile["targets_in_history"] == {"validation": 0, "test": 0}


@pytest.mark.parametrize("policy", [{"items_without_id": "drop"}, {"repeated_items": "first"}])
def test_a_line_is_that_of_the_file_whatever_is_left_out_above_it(tmp_path: Path, policy: dict[str, str]) -> None:
    shop(tmp_path, suffix="csv")
    lines = (tmp_path / "items.csv").read_text().splitlines()
    lines = [f"{line},{'price' if not number else 3}" for number, line in enumerate(lines)]
    head, first = lines[0].split(","), lines[1].split(",")
    if "items_without_id" in policy:
        first[head.index("item_id")] = ""
    lines[2:2] = [",".join(first)] * 3
    lines[-1] = lines[-1].removesuffix("3") + "soon"
    (tmp_path / "items.csv").write_text("\n".join(lines) + "\n")
    kept = {"attribute_columns": ["price"], "attribute_kinds": ["price=number"]}
    with pytest.raises(UserError, match=rf"in line {len(lines)}: 'soon'"):
        preprocess(config(tmp_path, **policy, **kept))


def test_a_time_that_counts_as_missing_is_not_taken_for_zero(tmp_path: Path) -> None:
    shop(tmp_path)
    log = pl.read_parquet(tmp_path / "interactions.parquet")
    name = DataConfig().timestamp_column
    assert name is not None
    log.with_columns(pl.lit(-1).alias(name)).write_parquet(tmp_path / "interactions.parquet")
    assert preprocess(config(tmp_path, negative_times="zero")).profile["warnings"]
    with pytest.raises(UserError, match="has no time in row 1"):
        preprocess(config(tmp_path, negative_times="zero", missing=["-1"]))
