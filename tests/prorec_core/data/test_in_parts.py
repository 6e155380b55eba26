"""k parts give what one gives: data sets, profiles and mistakes of a log that others read in pieces, in any order."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prorec_core.artifacts import sha256_file
from prorec_core.config_data import DataConfig
from prorec_core.data import in_parts, pieces
from prorec_core.data.filtering import Few
from prorec_core.data.in_parts import Arrange, Arranged, Read
from prorec_core.data.partition import Rows
from prorec_core.data.pieces import PART
from prorec_core.data.stage import Spread, preprocess
from prorec_core.errors import UserError

Given = TypeVar("Given")
Made = TypeVar("Made")


def sent(value: Any) -> Any:
    """As it arrives in another process: put together anew, and sharing nothing."""
    return copy.deepcopy(value)


@dataclass
class HeldHere:
    """Parts in this process, which come in any order."""

    parts: list[Any]

    def each(self, do: Callable[[Rows], Made]) -> Iterator[tuple[int, Made]]:
        do = sent(do)
        for number in random.sample(range(len(self.parts)), len(self.parts)):
            yield number, sent(do(Rows.of_arrow(self.parts[number])))


@dataclass
class CrewHere:
    """Does in this process what others would do, part by part, in any order."""

    workers: int
    held: HeldHere | None = None

    def each(self, do: Callable[[Given], Made], given: Sequence[Given]) -> Iterator[tuple[int, Made]]:
        for place in random.sample(range(len(given)), len(given)):
            yield place, sent(sent(do)(sent(given[place])))

    def in_parts(
        self, read: Read[Given], given: Sequence[Given], parts: int, make: Arrange
    ) -> tuple[HeldHere, Iterator[Arranged]]:
        rows = pl.concat([frame for each in given for frame in sent(read)(sent(each))])
        rows = rows.sample(fraction=1, shuffle=True, seed=1)
        made = [sent(make)(frame) for frame in rows.partition_by(PART)]
        self.held = HeldHere([each.to_arrow() for each, _ in made])
        return self.held, iter([sent(told) for _, told in made])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_WORTH", 0)
    monkeypatch.setattr(pieces, "_ROWS", 7)
    monkeypatch.setattr(in_parts, "_ROWS_OF_PART", 9)
    monkeypatch.setattr(in_parts, "_LOOKS", 2)


def outcome(config: DataConfig, folder: Path, spread: Spread | None = None) -> dict[str, str] | str:
    """The digests of what is left, or the mistake that is told."""
    try:
        dataset = preprocess(config, spread=spread)
    except UserError as error:
        return str(error)
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    dataset.save(folder)
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


def expect_same(config: DataConfig, folder: Path) -> dict[str, str] | str:
    alone = outcome(config, folder / "alone")
    for workers in (1, 3):
        crew = CrewHere(workers)
        assert outcome(config, folder / "shared", partial(nullcontext, crew)) == alone
        assert crew.held is not None or isinstance(alone, str)
    return alone


def settings_of(folder: Path, **changes: Any) -> DataConfig:
    small = {"min_user_interactions": 3, "min_item_interactions": 2, "interactions_file": "log", "source": "tables"}
    return DataConfig.model_validate({**small, "path": str(folder), **changes})


_USERS = ["u1", "u2", "u3", "U4", "007", "7", "7.0", "nan", " u5", "u5", "true"]
_ITEMS = ["a", "b", "c", "d", "e", "f", "g", "not there", "null"]
_rows = st.lists(
    st.tuples(st.sampled_from(_USERS), st.sampled_from(_ITEMS), st.integers(0, 6), st.integers(1, 5)),
    min_size=1,
    max_size=120,
)
_changes = st.fixed_dictionaries(
    {},
    optional={
        "duplicates": st.sampled_from(["keep", "exact", "first"]),
        "ties": st.sampled_from(["input", "shuffle"]),
        "unknown_items": st.sampled_from(["drop", "keep", "error"]),
        "items_without_text": st.sampled_from(["keep", "drop", "error"]),
        "min_item_interactions": st.integers(1, 4),
        "rating": st.just({"rating_column": "rating", "min_rating": 3.0}),
        "split": st.sampled_from(
            [{"split": "by_position"}, {"split": "by_time"}, {"new_items": 0.3}, {"timestamp_column": None}]
        ),
    },
)


def write_log(folder: Path, rows: Sequence[tuple[Any, ...]], files: int, suffix: str) -> None:
    """A log in some files, and its items."""
    log = folder / "log"
    log.mkdir(exist_ok=True)
    for path in log.iterdir():
        path.unlink()
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "rating"], orient="row")
    step = -(-frame.height // files)
    for number, part in enumerate(frame.iter_slices(step)):
        path = log / f"{number}.{suffix}"
        match suffix:
            case "parquet":
                part.write_parquet(path, row_group_size=5)
            case "csv":
                part.write_csv(path)
            case _:
                part.write_ndjson(path)
    (folder / "items.csv").write_text(
        "item_id,title,categories\n" + "".join(f"{each},{'' if each == 'g' else each * 2},\n" for each in _ITEMS[:7])
    )


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_rows, _changes, st.integers(1, 4), st.sampled_from(["parquet", "csv", "jsonl"]))
def test_k_parts_give_what_one_gives(
    tmp_path: Path, rows: list[tuple[Any, ...]], changes: dict[str, Any], files: int, suffix: str
) -> None:
    write_log(tmp_path, rows, files, suffix)
    flat = {
        k: v for name, each in changes.items() for k, v in (each if isinstance(each, dict) else {name: each}).items()
    }
    expect_same(settings_of(tmp_path, **flat), tmp_path)


def shop(users: int = 20) -> list[list[Any]]:
    return [[f"u{user}", item, 1_600_000_000 + user, 5] for user in range(users) for item in "abcdef"]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_times_are_of_one_unit_whatever_batch_shows_it(tmp_path: Path, suffix: str) -> None:
    rows = shop()
    rows[-1][2] = "2020-09-13T12:26:59.123456789Z"
    for row in rows[:-1]:
        row[2] = "2020-09-13 12:26:40"
    write_log(tmp_path, rows, 3, suffix)
    assert isinstance(expect_same(settings_of(tmp_path), tmp_path), dict)
    for row in rows:
        row[2] = 5.0
    rows[70][2] = 0.25
    write_log(tmp_path, rows, 3, suffix)
    assert isinstance(expect_same(settings_of(tmp_path), tmp_path), dict)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize(
    ("row", "column", "value", "said"),
    [
        (70, 0, None, "column 'user_id' has no id in"),
        (70, 1, "NULL", "column 'item_id' has an id that counts as missing in"),
        (70, 2, None, "column 'timestamp' has no time in"),
        (70, 2, -5, "holds a negative time in"),
        (70, 2, 1_600_000_000_000, "in milliseconds ("),
        (70, 1, "A", "in another form alone"),
    ],
)
def test_mistakes_are_told_as_one_process_tells_them(
    tmp_path: Path, suffix: str, row: int, column: int, value: Any, said: str
) -> None:
    rows = shop()
    for place in (row, row + 20):
        rows[place][column] = value
    write_log(tmp_path, rows, 3, suffix)
    told = expect_same(settings_of(tmp_path, missing=["NULL"]), tmp_path)
    assert isinstance(told, str) and said in told and "\n" not in told


def test_files_that_do_not_fit_the_others_are_told_as_one_process_tells_them(tmp_path: Path) -> None:
    write_log(tmp_path, shop(), 3, "parquet")
    second = tmp_path / "log" / "1.parquet"
    frame = pl.read_parquet(second)
    for odd, said in (
        (frame.with_columns(pl.col("timestamp").cast(pl.String)), "has the type String, and Int64 in"),
        (frame.drop("item_id"), "there is no column 'item_id'"),
        (frame.head(0), None),
    ):
        odd.write_parquet(second)
        told = expect_same(settings_of(tmp_path), tmp_path)
        assert isinstance(told, dict) if said is None else isinstance(told, str) and said in told
    second.write_bytes(second.read_bytes()[:90])
    assert "cannot be read" in str(expect_same(settings_of(tmp_path), tmp_path))


def test_one_file_and_an_empty_one(tmp_path: Path) -> None:
    pl.DataFrame(shop(), schema=["user_id", "item_id", "timestamp", "rating"], orient="row").write_parquet(
        tmp_path / "one.parquet", row_group_size=10
    )
    write_log(tmp_path, shop(), 1, "csv")
    assert isinstance(expect_same(settings_of(tmp_path, interactions_file="one.parquet"), tmp_path), dict)
    (tmp_path / "log" / "0.csv").write_text("user_id,item_id,timestamp\n")
    assert "holds no interactions" in str(expect_same(settings_of(tmp_path), tmp_path))


def test_a_machine_without_the_files_is_told(tmp_path: Path) -> None:
    write_log(tmp_path, shop(), 1, "csv")
    found = pieces.Piece(tmp_path, tmp_path / "log" / "0.csv", 1, None, pieces.TextRules(), "log")
    with pytest.raises(UserError, match="finds another file there"):
        found.expect()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_what_is_told_of_a_part_adds_up_and_is_no_larger_than_its_items(counts: list[int]) -> None:
    dense = np.array(counts, np.int64)
    few, total = Few.of(dense), np.ones(len(counts), np.int64)
    few.add_to(total)
    assert total.tolist() == (dense + 1).tolist() and len(few.items) == np.count_nonzero(dense)
