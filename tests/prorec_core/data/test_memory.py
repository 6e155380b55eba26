"""How much memory a long log takes, each time in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prorec_core.data.counting import gathered, occurrences

_ROWS = 2_000_000
_PROGRAM = """
import json, resource, sys
from prorec_core.config_data import DataConfig
from prorec_core.data.stage import preprocess
taken = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = taken()
data = preprocess(DataConfig(source="tables", path=sys.argv[1], text_columns=["title"]))
print(json.dumps({"mib": (taken() - before) >> 10, "rows": len(data.sequences.items)}))
"""


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two million rows in many row groups, with ids of thirty letters that would take 180 MiB as texts."""
    folder = tmp_path_factory.mktemp("long")
    chance = np.random.default_rng(0)
    users, items = pl.Series(chance.integers(0, 200_000, _ROWS)), pl.Series(chance.integers(0, 20_000, _ROWS))
    names = {"user_id": "a-user-who-has-a-long-id-", "item_id": "an-item-that-has-a-long-id-"}
    log = pl.DataFrame({"user_id": users, "item_id": items}).select(
        (pl.lit(names[column]) + pl.col(column).cast(pl.String).str.zfill(6)).alias(column) for column in names
    )
    times = pl.Series("timestamp", chance.integers(1_500_000_000, 1_700_000_000, _ROWS))
    log.with_columns(times).write_parquet(folder / "interactions.parquet", row_group_size=100_000)
    stock = pl.DataFrame({"item_id": log["item_id"].unique().sort()}).with_columns(title=pl.lit("a thing"))
    stock.write_parquet(folder / "items.parquet")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_a_long_log_takes_memory_for_numbers_and_not_for_texts(long_log: Path) -> None:
    # Each thread has a batch of its own.
    environment = {**os.environ, "POLARS_MAX_THREADS": "2"}
    command = [sys.executable, "-c", _PROGRAM, str(long_log)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    assert found["rows"] > 0.9 * _ROWS
    # As texts all along they took 920 MiB, batch by batch they take 400.
    assert found["mib"] < 640


def test_counts_and_lookups_of_many_slices_are_those_of_one() -> None:
    codes = np.random.default_rng(0).integers(0, 50, 9_000_000).astype(np.int32)
    assert np.array_equal(occurrences(codes, 60), np.bincount(codes, minlength=60))
    table = np.arange(50, dtype=np.int32)[::-1].copy()
    expected = table[codes]
    assert np.array_equal(gathered(table, codes, out=codes), expected) and np.array_equal(codes, expected)
