from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prorec_core.data.dataset import Dataset
from prorec_core.data.histories import Columns, DatasetHistories, FileHistories, Histories
from prorec_core.data.sequences import from_lists
from prorec_core.errors import UserError

USERS = ["u1", "u2", "u3"]
LISTS = [["a", "b"], [], ["b", "c", "a"]]


def everyone(histories: Histories, size: int) -> list[tuple[str, list[str]]]:
    chunks = list(histories.chunks(size))
    assert all(len(chunk.user_ids) == size for chunk in chunks[:-1])
    return [pair for each in chunks for pair in zip(each.user_ids, each.histories.to_list(), strict=True)]


def write(frame: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path)
    return path


@pytest.mark.parametrize("kind", ["lists.parquet", "lists.jsonl", "texts.csv", "texts.parquet"])
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_a_file_of_histories(tmp_path: Path, kind: str, size: int) -> None:
    lists = LISTS if kind.startswith("lists") else [" , ".join(items) for items in LISTS]
    path = write(pl.DataFrame({"user_id": USERS, "history": lists}), tmp_path / kind)
    found = FileHistories(path)
    assert found.n_users == 3 and found.item_ids().to_list() == ["a", "b", "c"]
    assert everyone(found, size) == list(zip(USERS, LISTS, strict=True))


def test_a_history_may_be_missing(tmp_path: Path) -> None:
    for histories in (["x", None, " "], [["x"], None, []]):
        path = write(pl.DataFrame({"user_id": USERS, "history": histories}), tmp_path / "a.parquet")
        assert everyone(FileHistories(path), 2) == list(zip(USERS, (["x"], [], []), strict=True))


def test_ids_may_be_numbers_and_columns_have_other_names(tmp_path: Path) -> None:
    frame = pl.DataFrame({"customer": [7, 5], "basket": [[30, 4], [4]]})
    found = FileHistories(write(frame, tmp_path / "a.parquet"), Columns(user="customer", history="basket"))
    assert everyone(found, 5) == [("7", ["30", "4"]), ("5", ["4"])]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_file_of_interactions(tmp_path: Path, suffix: str) -> None:
    frame = pl.DataFrame(
        {"user_id": ["u3", "u1", "u3", "u1", "u3"], "item_id": ["c", "b", "b", "a", "a"], "timestamp": [2, 9, 1, 8, 3]}
    )
    path = write(frame, tmp_path / f"log{suffix}")
    found = FileHistories(path)
    assert found.n_users == 2
    assert everyone(found, 1) == [("u1", ["a", "b"]), ("u3", ["b", "c", "a"])]
    in_order = FileHistories(path, Columns(time=None))
    assert everyone(in_order, 9) == [("u1", ["b", "a"]), ("u3", ["c", "b", "a"])]


def test_many_users_come_in_order_whatever_the_size_of_chunks(tmp_path: Path) -> None:
    users = [f"{user:06d}" for user in range(30_500)]
    path = write(pl.DataFrame({"user_id": users, "history": [[user] for user in users]}), tmp_path / "a.parquet")
    for size in (999, 12_345):
        assert [user for user, _ in everyone(FileHistories(path), size)] == users


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"user_id": ["a", "b", "a"], "history": [["x"]] * 3}, "the user 'a' has more than one history"),
        ({"user_id": ["a", None], "history": [["x"]] * 2}, "column 'user_id' has no id in row 2"),
        ({"user_id": [1.5], "history": [["x"]]}, "column 'user_id' has the type Float64"),
        ({"user_id": ["a"], "history": [1.5]}, "column 'history' has the type Float64"),
        ({"user_id": ["a", "b"], "history": [["x"], ["x", None, "y"]]}, "'history' has an item without an id in row 2"),
        ({"user_id": ["a", "b"], "history": [[], ["x", ""]]}, "'history' has an item without an id in row 2"),
        ({"user_id": ["a", "b"], "history": [" ", "x,,y"]}, "has an item without an id in row 2: 'x,,y'. Fill it in"),
        ({"user_id": ["a", "b"], "history": [None, "x, "]}, "'history' has an item without an id in row 2: 'x, '"),
        ({"user": ["a"], "history": [["x"]]}, "there is no column 'user_id'.*nearest: 'user'"),
        ({"user_id": ["a"], "item": ["x"]}, "there is no column 'item_id'"),
        ({"user_id": ["a"], "item_id": ["x"]}, "there is no column 'timestamp'"),
        ({"user_id": pl.Series([], dtype=pl.Int64), "history": pl.Series([], dtype=pl.String)}, "holds no users"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, frame: dict[str, list[object]], message: str) -> None:
    path = write(pl.DataFrame(frame), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message) as caught:
        _ = FileHistories(path).n_users
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for name, message in (("no.parquet", "there is no such file"), ("a.txt", "a file of this kind is not read")):
        with pytest.raises(UserError, match=message):
            _ = FileHistories(tmp_path / name).n_users
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="the file cannot be read"):
        _ = FileHistories(tmp_path / "broken.parquet").n_users


def test_a_data_set_gives_whole_sequences() -> None:
    lists = [np.array(items, np.int32) for items in ([0, 2, 1], [2, 2, 0, 1])]
    data = Dataset(
        items=pl.DataFrame({"item_id": ["x", "y", "z"]}),
        users=pl.DataFrame({"user_id": ["u", "v"]}),
        sequences=from_lists(lists, 3),
        timestamps=np.zeros(7, np.int64),
        profile={},
    )
    found = DatasetHistories(data)
    assert found.n_users == 2 and found.item_ids().to_list() == ["x", "y", "z"]
    assert everyone(found, 1) == everyone(found, 5) == [("u", ["x", "z", "y"]), ("v", ["z", "z", "x", "y"])]


def test_times_may_be_written_as_declared(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user_id": ["u", "u"], "item_id": ["later", "first"], "timestamp": ["01/03/2024", "02/01/2024"]}
    )
    path = write(frame, tmp_path / "log.csv")
    assert everyone(FileHistories(path, Columns(form="%d/%m/%Y")), 1) == [("u", ["first", "later"])]
    assert everyone(FileHistories(path, Columns(form="%m/%d/%Y")), 1) == [("u", ["later", "first"])]
    with pytest.raises(UserError, match="--timestamp-format"):
        _ = FileHistories(path).n_users
