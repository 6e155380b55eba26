from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prorec_core.artifacts import sha256_file
from prorec_core.data.dataset import Dataset
from prorec_core.data.histories import Chunk, DatasetHistories, FileHistories, Histories
from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.errors import UserError
from prorec_core.generation.batch import SCHEMA, BatchSettings, _key, check_catalogue, recommend_all, rows_of
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.recommender import Recommender
from prorec_core.progress import Progress

ROOT = Path(__file__).resolve().parents[3]
ITEMS = [f"i{item}" for item in range(6)]
SETTINGS = BatchSettings(k=3, mask_history=True, chunk=4, model="models:/m/1", model_digest="d")


class Cycle(Recommender):
    """Recommends the items after the last one of a history, in a circle; dies after some calls if told to."""

    def __init__(self, calls_to_live: int = -1) -> None:
        counts = range(len(ITEMS), 0, -1)
        items = pl.DataFrame({"item_id": ITEMS, "title": [f"Title {item}" for item in ITEMS], "train_count": counts})
        nothing: Any = None
        super().__init__(nothing, items, nothing, 1)
        self.calls = 0
        self.calls_to_live = calls_to_live

    def _ranked(self, histories: Sequences, k: int, mask_history: bool, rules: Any) -> tuple[Any, Any]:
        if self.calls == self.calls_to_live:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        ranked = np.full((histories.n_users, k), -1, np.int32)
        for user in range(histories.n_users):
            history = histories.of_user(user)
            order = (history[-1] + 1 + np.arange(len(ITEMS))) % len(ITEMS)
            open_ = [item for item in order if not mask_history or item not in history][:k]
            ranked[user, : len(open_)] = open_
        return ranked, np.where(ranked >= 0, -np.arange(k), -np.inf).astype(np.float32)


def make_file(folder: Path) -> FileHistories:
    frame = pl.DataFrame(
        {"user_id": [f"u{user}" for user in range(10)], "history": [ITEMS[: 1 + user % 6] for user in range(10)]}
    )
    path = folder / "histories.parquet"
    if not path.exists():
        frame.write_parquet(path)
    return FileHistories(path)


def test_the_file_holds_what_is_recommended(tmp_path: Path) -> None:
    told: list[Progress] = []
    output, recommender = tmp_path / "out.parquet", Cycle()
    result = recommend_all(recommender, make_file(tmp_path), SETTINGS, output, told.append)
    table = pq.read_table(output)
    assert table.schema.equals(SCHEMA)
    assert table.schema.metadata == {
        b"prorec_schema_version": b"1",
        b"prorec_model": b"models:/m/1",
        b"prorec_model_digest": b"d",
        b"prorec_k": b"3",
        b"prorec_history_masked": b"true",
    }
    rows = pl.DataFrame(pl.from_arrow(table))
    assert rows.filter(user_id="u0")["item_id"].to_list() == ["i1", "i2", "i3"]
    assert rows.filter(user_id="u3").rows() == [("u3", 1, "i4", "Title i4", 0.0), ("u3", 2, "i5", "Title i5", -1.0)]
    # Somebody who has everything gets nothing.
    assert rows["user_id"].unique(maintain_order=True).to_list() == [f"u{user}" for user in range(10) if user != 5]
    assert result.users == 10 and result.rows == rows.height and result.users_found == 0
    # u3 and u9 have two items left, u4 one, u5 none.
    assert (result.users_short, result.users_empty) == (4, 1)
    assert result.sha256 == sha256_file(output)
    assert [(each.step, each.total, each.unit) for each in told] == [(4, 10, "user"), (8, 10, "user"), (10, 10, "user")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["histories.parquet", "out.parquet"]


def make_data() -> DatasetHistories:
    """Users of all kinds: with nothing, with one item twice, with all items."""
    lists = [[0], [], [1, 1, 2], [5, 4, 3, 2, 1, 0], [], [3], [2, 5]]
    sequences = from_lists([np.array(items, np.int32) for items in lists], len(ITEMS))
    users = pl.DataFrame({"user_id": [f"user {'é' * user}" for user in range(len(lists))]})
    timestamps = np.zeros(len(sequences.items), np.int64)
    return DatasetHistories(Dataset(pl.DataFrame({"item_id": ITEMS}), users, sequences, timestamps, {}))


@pytest.mark.parametrize("k", [1, 3, 6, 50])
@pytest.mark.parametrize("mask_history", [True, False])
@pytest.mark.parametrize("rows_at_once", [2**20, 5])
def test_its_columns_are_the_recommendations_row_by_row(
    tmp_path: Path, k: int, mask_history: bool, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prorec_core.generation.batch._ROWS", rows_at_once)
    asked = replace(SETTINGS, k=k, mask_history=mask_history, chunk=3)
    for name, histories in (("file", make_file(tmp_path)), ("data", make_data())):
        output = tmp_path / f"{name}.parquet"
        recommend_all(Cycle(), histories, asked, output)
        assert pq.read_table(output).equals(_row_by_row(Cycle(), histories, asked))


def _row_by_row(recommender: Recommender, histories: Histories, asked: BatchSettings) -> pa.Table:
    rows = [
        {"user_id": user, "rank": rank, "item_id": each.item_id, "title": each.title, "score": each.score}
        for chunk in histories.chunks(asked.chunk)
        for user, history in zip(chunk.user_ids, chunk.histories.to_list(), strict=True)
        for rank, each in enumerate(recommender.recommend([history], asked.k, mask_history=asked.mask_history)[0], 1)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@pytest.mark.parametrize(
    ("histories", "users"),
    [
        ([["a", "b"], ["c"]], ["u", "v"]),
        ([["a"], ["b", "c"]], ["u", "v"]),
        ([["ab"], ["c"]], ["u", "v"]),
        ([["a", "b", "c"], []], ["u", "v"]),
        ([[], ["a", "b", "c"]], ["u", "v"]),
        ([["a", "b"], ["c"]], ["uv", ""]),
        ([["a", "b"], ["c"]], ["v", "u"]),
    ],
)
def test_a_chunk_is_known_by_its_content(histories: list[list[str]], users: list[str]) -> None:
    def chunk(lists: list[list[str]], names: list[str]) -> Chunk:
        return Chunk(pl.Series(names, dtype=pl.String), pl.Series(lists, dtype=pl.List(pl.String)))

    of = _key(chunk(histories, users), SETTINGS)
    # The same as a piece of something longer.
    longer = chunk([["x"], *histories, ["y"]], ["s", *users, "t"])
    assert _key(Chunk(longer.user_ids.slice(1, 2), longer.histories.slice(1, 2)), SETTINGS) == of
    others = [([["b", "a"], ["c"]], ["u", "v"]), ([["a", "b"], ["c"]], ["u", "w"]), ([["a", "b", "c"]], ["uv"])]
    assert of not in {_key(chunk(*other), SETTINGS) for other in others}
    assert of != _key(chunk(histories, users), replace(SETTINGS, k=4))


SCRIPT = """
import sys
from pathlib import Path
from tests.prorec_core.generation.test_batch import SETTINGS, Cycle, make_file, recommend_all
folder = Path(sys.argv[1])
recommend_all(Cycle(int(sys.argv[2])), make_file(folder), SETTINGS, folder / "out.parquet")
"""


def test_after_a_kill_it_goes_on_with_the_chunks_that_are_there(tmp_path: Path) -> None:
    whole = recommend_all(Cycle(), make_file(tmp_path), SETTINGS, tmp_path / "whole.parquet")
    (tmp_path / "out.parquet").write_bytes(b"of yesterday")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), "2"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "out.parquet").read_bytes() == b"of yesterday"
    again = Cycle()
    result = recommend_all(again, make_file(tmp_path), SETTINGS, tmp_path / "out.parquet")
    assert again.calls == 1 and result.users_found == 8
    assert (result.users_short, result.users_empty) == (whole.users_short, whole.users_empty) == (4, 1)
    assert result.sha256 == whole.sha256
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("change", [{"k": 2}, {"mask_history": False}, {"model_digest": "e"}, {"chunk": 5}])
def test_chunks_of_another_question_are_not_used(tmp_path: Path, change: dict[str, object]) -> None:
    output = tmp_path / "out.parquet"
    with pytest.raises(RuntimeError):
        recommend_all(Cycle(), make_file(tmp_path), SETTINGS, output, _stop)
    asked = replace(SETTINGS, **change)  # type: ignore[arg-type]
    result = recommend_all(Cycle(), make_file(tmp_path), asked, output)
    assert result.users_found == 0
    assert result.sha256 == recommend_all(Cycle(), make_file(tmp_path), asked, tmp_path / "fresh.parquet").sha256


def _stop(_: Progress) -> None:
    raise RuntimeError


@pytest.mark.parametrize("place", range(4, 400, 60))
def test_a_damaged_chunk_is_made_again_and_this_is_said(
    tmp_path: Path, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out.parquet"
    with pytest.raises(RuntimeError):
        recommend_all(Cycle(), make_file(tmp_path), SETTINGS, output, _stop)
    (part,) = (tmp_path / ".out.parquet.parts").iterdir()
    content = bytearray(part.read_bytes())
    content[place] ^= 1
    part.write_bytes(content)
    result = recommend_all(Cycle(), make_file(tmp_path), SETTINGS, output)
    assert result.users_found == 0 and len(caplog.records) == 1 and str(part) in caplog.text
    assert result.sha256 == recommend_all(Cycle(), make_file(tmp_path), SETTINGS, tmp_path / "fresh.parquet").sha256


def test_no_room_is_one_line_and_keeps_what_is_done(tmp_path: Path) -> None:
    (tmp_path / "out.parquet").mkdir()
    (tmp_path / "out.parquet" / "in the way").touch()
    with pytest.raises(UserError, match=r"out.parquet: the file cannot be written"):
        recommend_all(Cycle(), make_file(tmp_path), SETTINGS, tmp_path / "out.parquet")
    assert len(list((tmp_path / ".out.parquet.parts").glob("*.parquet"))) == 3


def test_another_catalogue_is_refused(tmp_path: Path) -> None:
    recommender, histories = Cycle(), make_file(tmp_path)
    assert check_catalogue(recommender, histories, whole=True, drop_unknown=False) == 0
    recommender.item_ids, recommender.catalogue = ["i0", "i1", "i2", "x"], Catalogue.of_training(4)
    with pytest.raises(UserError, match=r"3 of 6 items are unknown to the model \(i3, i4, i5\).*--unknown-items drop"):
        check_catalogue(recommender, histories, whole=False, drop_unknown=False)
    assert check_catalogue(recommender, histories, whole=False, drop_unknown=True) == 3
    with pytest.raises(UserError, match=r"and 1 of 4 items of the model are not in the data \(x\)"):
        check_catalogue(recommender, histories, whole=True, drop_unknown=False)


def test_what_came_after_the_training_and_what_was_withdrawn_is_no_other_catalogue(tmp_path: Path) -> None:
    recommender, histories = Cycle(), make_file(tmp_path)
    recommender.item_ids = [*ITEMS, "later"]
    recommender.catalogue = Catalogue.of_training(6).with_more(1, 0.0).with_withdrawn(np.array([2]), True)
    assert check_catalogue(recommender, histories, whole=True, drop_unknown=False) == 0


def test_whoever_makes_the_rows_in_whatever_order_the_file_is_the_same(tmp_path: Path) -> None:
    recommender, asked = Cycle(), []
    alone = recommend_all(recommender, make_file(tmp_path), SETTINGS, tmp_path / "alone.parquet")

    def backwards(chunks: Iterator[tuple[str, Chunk]]) -> Iterator[tuple[str, bytes]]:
        make = rows_of(recommender, SETTINGS)
        for key, chunk in reversed(list(chunks)):
            asked.append(key)
            yield key, make(chunk)
            if len(asked) == stop:
                raise RuntimeError("the one who makes them died")

    output = tmp_path / "others.parquet"
    for stop in (2, 0):
        told: list[Progress] = []
        if stop:
            with pytest.raises(RuntimeError):
                recommend_all(recommender, make_file(tmp_path), SETTINGS, output, told.append, backwards)
        else:
            result = recommend_all(recommender, make_file(tmp_path), SETTINGS, output, told.append, backwards)
    assert len(asked) == len(set(asked)) == 3, "what was made is not made again"
    assert told[-1] == Progress(10, 10, "user")
    assert output.read_bytes() == (tmp_path / "alone.parquet").read_bytes() and result.sha256 == alone.sha256
    assert result.users_found == 6 and result.users == 10
