from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.artifacts import write_parquet
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import read_embeddings, write_embeddings
from prorec_core.data.sequences import Split
from prorec_core.errors import UserError
from tests.data_sets import data_set


def dataset(lists: list[list[int]], n_items: int) -> Dataset:
    names = [f"i{item} \N{GREEK SMALL LETTER PI}" for item in range(n_items)]
    return data_set(lists, n_items, item_ids=names, profile={"kept": {"users": len(lists)}}, step=10**10)


@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=8), min_size=1, max_size=6))
@settings(max_examples=25)
def test_round_trip(lists: list[list[int]]) -> None:
    saved = dataset(lists, 6)
    with TemporaryDirectory() as name:
        folder = Path(name)
        saved.save(folder)
        loaded = Dataset.load(folder)
        first = {path.name: path.read_bytes() for path in folder.iterdir()}
        loaded.save(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert sorted(first) == ["items.parquet", "profile.json", "sequences.parquet", "users.parquet"]
    assert loaded.items.equals(saved.items) and loaded.items.schema == saved.items.schema
    assert loaded.users.equals(saved.users) and loaded.users.schema == saved.users.schema
    for ours, theirs in (
        (loaded.sequences.items, saved.sequences.items),
        (loaded.sequences.offsets, saved.sequences.offsets),
        (loaded.timestamps, saved.timestamps),
    ):
        assert ours.dtype == theirs.dtype and ours.tolist() == theirs.tolist()
    assert loaded.sequences.n_items == 6 and loaded.profile == saved.profile


def test_targets_that_are_left_out_stay_so(tmp_path: Path) -> None:
    whole = dataset([[0, 1, 2], [3, 4, 5], [1, 2, 3]], 6)
    out = whole.sequences.leaving_out(Split.TEST, np.array([False, True, False]))
    replace(whole, sequences=out).save(tmp_path)
    found = Dataset.load(tmp_path).sequences
    assert (tmp_path / "left_out.parquet").is_file() and found.targets(Split.TEST).tolist() == [2, 3]
    assert found.targets(Split.VALIDATION).tolist() == [1, 4, 2]


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (0, 5)])
def test_embeddings_round_trip(tmp_path: Path, shape: tuple[int, int]) -> None:
    rows: npt.NDArray[np.float32] = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = tmp_path / "embeddings.parquet"
    write_embeddings(path, rows)
    found = read_embeddings(path, "align")
    assert found.dtype == np.float32 and found.shape == shape and (found == rows).all()
    assert pl.read_parquet(path).schema == {"item": pl.Int32, "embedding": pl.Array(pl.Float32, shape[1])}


def test_foreign_parquet_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"item": [0]}).write_parquet(tmp_path / "embeddings.parquet")
    with pytest.raises(UserError, match="schema version"):
        read_embeddings(tmp_path / "embeddings.parquet", "align")
    write_parquet(tmp_path / "embeddings.parquet", pa.table({"item": [0]}))
    with pytest.raises(UserError, match="holds no embeddings"):
        read_embeddings(tmp_path / "embeddings.parquet", "align")
