"""How a log is cut into yesterday's and today's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.continuing import write_log, yesterday
from tests.data_sets import data_set

SHOP = data_set([np.arange(3 + user % 9, dtype=np.int32) for user in range(400)], 11)


@pytest.mark.parametrize("cut", ["time", "position"])
def test_what_is_left_is_the_beginning_of_each_history_or_of_the_log(cut: str, tmp_path: Path) -> None:
    keep = yesterday(SHOP, cut, 0.2, 0)
    assert 0.75 < keep.mean() < 0.85
    write_log(SHOP, keep, tmp_path)
    written = pl.read_parquet(tmp_path / "interactions.parquet")
    assert written.height == keep.sum()
    if cut == "time":
        assert SHOP.timestamps[keep].max() < SHOP.timestamps[~keep].min()
        return
    for user in range(SHOP.sequences.n_users):
        own = keep[SHOP.sequences.offsets[user] : SHOP.sequences.offsets[user + 1]]
        assert own[: own.sum()].all(), "what is cut off is the end"
