"""Several files as one table, named by a pattern."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from prorec_core.artifacts import write_manifest
from prorec_core.config_data import DataConfig
from prorec_core.data import ordering, parquet
from prorec_core.data.dataset import Dataset
from prorec_core.data.formats import RULES, open_file
from prorec_core.data.parts import PartsReader, matching
from prorec_core.data.stage import preprocess, source_digest
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError
from tests.prorec_core.data.test_readers import TestCsvQuoted as CsvQuoted
from tests.prorec_core.data.test_readers import TestParquet as Parquet
from tests.prorec_core.data.test_sources import SUFFIXES, config, read, shop, write


def parts_of(path: Path) -> RawTable:
    return RawTable(PartsReader(path.parent, [path], lambda file: open_file(file, RULES)), str(path))


class OnePart:
    """A pattern that means one file is read as this file is, but for the name of the file beside that of a row."""

    def open(self, path: Path) -> RawTable:
        return parts_of(path)

    def test_a_row_is_named_by_its_line(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, ["a", "b"], [("x", "y")] * 5)  # type: ignore[attr-defined]
        alone, part = open_file(path, RULES).place, parts_of(path).place
        assert [part.row(n) for n in range(5)] == [f"{alone.row(n)} of {path.name}" for n in range(5)]


class TestCsvPart(OnePart, CsvQuoted):
    pass


class TestParquetPart(OnePart, Parquet):
    pass


del CsvQuoted, Parquet


def split(folder: Path, suffix: str, sizes: list[int]) -> Path:
    """The shop's interactions in several files of a folder of their own, with names in the order of the rows."""
    log = pl.read_parquet(shop(folder, suffix="parquet") / "interactions.parquet")
    (folder / "interactions.parquet").unlink()
    (folder / "interactions").mkdir()
    start = 0
    for number, size in enumerate([*sizes, log.height - sum(sizes)]):
        write(log[start : start + size], folder / "interactions" / f"part-{number:02d}.{suffix}")
        start += size
    return folder


def digest(dataset: Dataset, folder: Path) -> str:
    folder.mkdir()
    dataset.save(folder)
    return write_manifest(folder, "preprocess", {}, {}).digest


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("ties", ["input", "shuffle"])
def test_the_data_are_the_same_however_many_files_batches_blocks_and_threads(
    tmp_path: Path, suffix: str, ties: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file of JSON Lines without a row has no columns.
    few = [5, 9] if suffix in ("jsonl", "ndjson") else [5, 0, 9]
    found = set()
    for number, (sizes, batch, block) in enumerate(
        [([], 1 << 17, 1 << 22), (few, 3, 2), ([1] * 20, 1 << 17, 7), ([31], 1, 1 << 22)]
    ):
        monkeypatch.setattr(parquet, "_BATCH", batch)
        monkeypatch.setattr(ordering, "_BLOCK", block)
        monkeypatch.setattr(pl, "thread_pool_size", lambda number=number: number + 1)
        folder = split(tmp_path / f"{number}", suffix, sizes)
        chosen = config(folder, interactions_file=f"interactions/*.{suffix}", ties=ties)
        found.add(digest(preprocess(chosen), tmp_path / f"{number}-out"))
    assert len(found) == 1


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop", 8, "csv")
    lines = (folder / "interactions.csv").read_text().splitlines()
    (folder / "interactions.csv").unlink()
    for name, rows in (("9", lines[1:3]), ("10", lines[3:5]), ("b/1", lines[5:7]), ("a/2", lines[7:])):
        file = folder / f"{name}.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([lines[0], *rows]))
    (folder / ".hidden.csv").write_text("no,columns,of,ours\n")
    names = [str(path.relative_to(folder)) for path in matching(folder, "**/[!i]*.csv")]
    assert names == ["10.csv", "9.csv", "a/2.csv", "b/1.csv"]
    found = preprocess(config(folder, interactions_file="**/[!i]*.csv"))
    assert read(found) == (32, 8) and found.profile["files"] == ["**/[!i]*.csv", "items.csv"]
    assert read(preprocess(config(folder, interactions_file=f"{folder}/*/*.csv", min_user_interactions=3)))[0] == 28


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["log[1]", "log*", "l?g", "[l]og"])
def test_a_file_that_has_the_very_name_is_meant_and_no_pattern(tmp_path: Path, suffix: str, name: str) -> None:
    shop(tmp_path, 3, suffix, ("log", "items"))
    shop(tmp_path, 3, suffix, ("log1", "items"))
    shop(tmp_path, 8, suffix, (name, "items"))
    chosen = config(tmp_path, interactions_file=f"{name}.{suffix}")
    assert read(preprocess(chosen)) == (32, 8)
    (tmp_path / f"{name}.{suffix}").unlink()
    assert read(preprocess(chosen))[1] == 3


@pytest.mark.parametrize("name", ["shop[1]", "sh*p", "{a,b}"])
def test_the_folder_of_a_pattern_is_no_pattern(tmp_path: Path, name: str) -> None:
    shop(tmp_path / "shop1", 3)
    shop(tmp_path / "shop", 3)
    assert read(preprocess(config(shop(tmp_path / name), interactions_file="inter*.csv"))) == (32, 8)


def test_items_may_be_several_files(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop", 8, "jsonl")
    lines = (folder / "items.jsonl").read_text().splitlines()
    (folder / "items.jsonl").unlink()
    for number in range(3):
        (folder / f"stock-{number}.jsonl").write_text("\n".join(lines[2 * number : 2 * number + 2]))
    found = preprocess(config(folder, items_file="stock-*.jsonl"))
    assert found.items["text"].to_list() == [f"T{n}. c" for n in range(6)]
    (folder / "stock-2.jsonl").write_text("\n".join([lines[4], lines[0]]))
    with pytest.raises(UserError, match=r"stock-\*\.jsonl: the item 'i0' stands there more than once"):
        preprocess(config(folder, items_file="stock-*.jsonl"))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_is_wrong_is_told_with_its_file_and_row(tmp_path: Path, suffix: str) -> None:
    folder = split(tmp_path / "shop", suffix, [10, 4])
    chosen = config(folder, interactions_file=f"interactions/*.{suffix}")
    file = folder / "interactions" / f"part-01.{suffix}"
    frame = pl.DataFrame({"user_id": ["a", ""], "item_id": ["i1", "i1"], "timestamp": [1, 2]})
    write(frame, file)
    line = {"csv": "line 3", "jsonl": "line 2", "parquet": "row 2"}[suffix]
    with pytest.raises(UserError, match=rf"column 'user_id' has no id in {line} of interactions/part-01.{suffix}\."):
        preprocess(chosen)
    write(frame.with_columns(user_id=pl.lit("a"), timestamp=pl.Series([1, -2])), file)
    with pytest.raises(UserError, match=rf"holds a negative time in {line} of interactions/part-01.{suffix}: '-2'"):
        preprocess(chosen)
    write(frame.drop("item_id"), file)
    with pytest.raises(UserError, match=rf"interactions/part-01\.{suffix}: there is no column 'item_id'"):
        preprocess(chosen)
    file.write_bytes(file.read_bytes()[:-9] + b"\xff")
    with pytest.raises(UserError, match=rf"interactions/part-01\.{suffix}: "):
        preprocess(chosen)


@pytest.mark.parametrize(
    ("values", "dtype"), [([1, 2], pl.Int64), ([True, False], pl.Boolean), ([["a"], ["b"]], pl.List(pl.String))]
)
def test_a_column_of_another_kind_in_another_file_is_refused(tmp_path: Path, values: list[Any], dtype: Any) -> None:
    folder = split(tmp_path / "shop", "parquet", [10])
    extra = pl.DataFrame({"user_id": pl.Series(values, dtype=dtype), "item_id": ["i1", "i2"], "timestamp": [1, 2]})
    write(extra, folder / "interactions" / "part-02.parquet")
    with pytest.raises(UserError, match=r"part-02.parquet: column 'user_id' has the type .*, and String in .*part-00"):
        preprocess(config(folder, interactions_file="interactions/*.parquet"))


def test_lists_that_hold_nothing_in_the_first_file_go_with_one_kind_alone(tmp_path: Path) -> None:
    files = []
    for number, values in enumerate(([[], []], [["a"]], [[1]])):
        files.append(write(pl.DataFrame({"a": values}), tmp_path / f"{number}.parquet"))
    two, all_ = (PartsReader(tmp_path, files[:size], lambda file: open_file(file, RULES)) for size in (2, 3))
    assert RawTable(two, "table").collect("a")["a"].to_list() == [[], [], ["a"]]
    with pytest.raises(UserError, match=r"2.parquet: column 'a' has the type List\(Int64\), and List\(String\) in 1"):
        RawTable(all_, "table").collect("a")


def test_columns_stand_in_each_file_where_they_like(tmp_path: Path) -> None:
    one, other = pl.DataFrame({"a": [1], "b": ["x"]}), pl.DataFrame({"c": [0.5], "b": ["y"], "a": [2]})
    files = [write(frame, tmp_path / f"{n}.parquet") for n, frame in enumerate((one, other))]
    table = RawTable(PartsReader(tmp_path, files, lambda file: open_file(file, RULES)), "table")
    assert table.collect("b", "a").rows() == [("x", 1), ("y", 2)] and table.rows() == 2


@pytest.mark.parametrize(
    "names", [("nothing-*.csv", "none that it means"), ("part-*", "ends in"), ("*.csv", "a folder")]
)
def test_patterns_that_mean_no_files_are_told(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = shop(tmp_path / "shop")
    (folder / "parts.csv").mkdir()
    with pytest.raises(UserError, match=names[1]) as caught:
        preprocess(config(folder, interactions_file=names[0]))
    assert str(folder / names[0]) in str(caught.value) and "\n" not in str(caught.value)


def test_the_source_of_a_pattern_changes_with_each_of_its_files(tmp_path: Path) -> None:
    folder = split(tmp_path / "shop", "csv", [10])
    chosen = config(folder, interactions_file="interactions/*.csv")
    before = source_digest(chosen)
    os.utime(folder / "interactions" / "part-01.csv", (0, 0))
    assert source_digest(chosen) == before
    (folder / "interactions" / "part-02.csv").write_text("user_id,item_id,timestamp\n")
    assert source_digest(chosen) != before


def test_a_pattern_of_a_source_that_has_its_own_files(tmp_path: Path) -> None:
    for number in range(2):
        rows = [f"u{user}\ti{step}\t{step}" for user in range(4 * number, 4 * number + 4) for step in range(4)]
        text = "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows])
        (tmp_path / f"{number}.inter").write_text(text)
    (tmp_path / "toy.item").write_text("item_id:token\ttitle:token_seq\n" + "".join(f"i{n}\tT{n}\n" for n in range(4)))
    chosen: DataConfig = config(tmp_path, source="recbole", interactions_file="*.inter", text_columns=["title"])
    assert read(preprocess(chosen)) == (32, 8)


WAYS: list[dict[str, Any]] = [{"interactions_file": "interactions"}, {"interactions_file": "interactions/**/*.csv"}]


@pytest.mark.parametrize("way", WAYS, ids=["folder", "pattern"])
def test_a_part_that_a_link_no_longer_leads_to_is_told(tmp_path: Path, way: dict[str, Any]) -> None:
    folder = split(tmp_path / "shop", "csv", [10])
    part = folder / "interactions" / "part-01.csv"
    part.unlink()
    part.symlink_to(tmp_path / "gone.csv")
    with pytest.raises(UserError, match=r"part-01\.csv: this is a link to what is not there"):
        preprocess(config(folder, **way))


@pytest.mark.parametrize("way", WAYS, ids=["folder", "pattern"])
def test_folders_that_are_links_are_read(tmp_path: Path, way: dict[str, Any]) -> None:
    folder = split(tmp_path / "shop", "csv", [10])
    whole = read(preprocess(config(folder, **way)))
    (tmp_path / "elsewhere").mkdir()
    part = folder / "interactions" / "part-01.csv"
    part.rename(tmp_path / "elsewhere" / "part-01.csv")
    (folder / "interactions" / "later").symlink_to(tmp_path / "elsewhere")
    assert read(preprocess(config(folder, **way))) == whole


@pytest.mark.parametrize("way", WAYS, ids=["folder", "pattern"])
def test_what_links_lead_to_twice_is_read_once(tmp_path: Path, way: dict[str, Any]) -> None:
    folder = split(tmp_path / "shop", "csv", [10])
    whole = read(preprocess(config(folder, **way)))
    parts = folder / "interactions"
    (parts / "again").symlink_to(parts)
    (parts / "2024").mkdir()
    (parts / "part-01.csv").rename(parts / "2024" / "part-01.csv")
    (parts / "latest").symlink_to(parts / "2024")
    assert read(preprocess(config(folder, **way))) == whole


@pytest.mark.parametrize("way", WAYS, ids=["folder", "pattern"])
def test_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = split(tmp_path / "shop", "csv", [10])
    closed = folder / "interactions" / "2024"
    closed.mkdir()

    def refuse(real: Any) -> Any:
        def call(path: Any = ".", *words: Any) -> Any:
            if str(path) == str(closed):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *words)

        return call

    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(os, "scandir", refuse(os.scandir))
    monkeypatch.setattr(os, "listdir", refuse(os.listdir))
    with pytest.raises(UserError, match=r"cannot be opened \(Permission denied\)"):
        preprocess(config(folder, **way))
