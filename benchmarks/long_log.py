"""Seconds and memory of `preprocess` on a long made-up log, beside those of only reading its file.

`python -m benchmarks.long_log [--rows 20e6] [--users 2e6] [--items 3e5] [--laps 3]`. Reading (by Polars, the whole file
at once) and preprocessing take turns, each time in a process of its own: on a busy machine their ratio says more than
their seconds, and the processor's seconds more than those of the clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

from benchmarks.laps import peak_bytes

_BATCH = 2_000_000
_YEARS = (1_500_000_000, 1_700_000_000)


def write_log(folder: Path, rows: int, users: int, items: int) -> None:
    """Interactions in no order of time, popular items far more often than others, ids that are texts; and items."""
    chance = np.random.default_rng(0)
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    with parquet.ParquetWriter(folder / "interactions.parquet", schema) as writer:
        for start in range(0, rows, _BATCH):
            size = min(_BATCH, rows - start)
            who = pl.Series(chance.integers(0, users, size))
            what = pl.Series(np.minimum(chance.pareto(0.9, size) * items / 200, items - 1).astype(np.int64))
            when = pl.Series(chance.integers(*_YEARS, size))
            frame = pl.DataFrame({"user_id": who, "item_id": what, "timestamp": when}).with_columns(
                pl.format("user-{}", "user_id").alias("user_id"), pl.format("item-{}", "item_id").alias("item_id")
            )
            writer.write_table(frame.to_arrow().cast(schema))
    stock = pl.DataFrame({"item_id": np.arange(items)}).with_columns(
        pl.format("item-{}", "item_id").alias("item_id"), pl.format("A thing of kind {}", "item_id").alias("title")
    )
    stock.write_parquet(folder / "items.parquet")


def lap(work: str, folder: Path) -> dict[str, float]:
    """Do one piece of work in this process, and say what it took."""
    from prorec_core.config_data import DataConfig
    from prorec_core.data.stage import preprocess

    before, started = _processor(), time.perf_counter()
    if work == "read":
        rows = pl.read_parquet(folder / "interactions.parquet").height
    else:
        config = DataConfig(source="tables", path=str(folder), text_columns=["title"])
        rows = len(preprocess(config).sequences.items)
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": _processor() - before,
        "peak_bytes": peak_bytes(),
        "rows": rows,
    }


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _apart(work: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.long_log", "--lap", work, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, laps: int, console: Console) -> None:
    """Let both works take turns, and print the medians."""
    found: dict[str, list[dict[str, float]]] = {"read": [], "preprocess": []}
    for _ in range(laps):
        for work, taken in found.items():
            taken.append(_apart(work, folder))
    table = Table("", "seconds", "of the processor", "peak, GiB", "rows")
    for work, taken in found.items():
        middle = {name: statistics.median(each[name] for each in taken) for name in taken[0]}
        table.add_row(
            work,
            f"{middle['seconds']:.1f}",
            f"{middle['processor_seconds']:.1f}",
            f"{middle['peak_bytes'] / 2**30:.2f}",
            f"{middle['rows']:,.0f}",
        )
    turns = list(zip(found["read"], found["preprocess"], strict=True))
    ratios = [statistics.median(b[name] / a[name] for a, b in turns) for name in ("seconds", "processor_seconds")]
    table.add_row("times as long", *(f"{ratio:.1f}" for ratio in ratios), "", "")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=20e6)
    parser.add_argument("--users", type=float, default=2e6)
    parser.add_argument("--items", type=float, default=3e5)
    parser.add_argument("--laps", type=int, default=3)
    parser.add_argument("--lap", choices=("read", "preprocess"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.lap:
        print(json.dumps(lap(given.lap, given.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="prorec-long-log-") as folder:
        write_log(Path(folder), int(given.rows), int(given.users), int(given.items))
        measure(Path(folder), given.laps, Console())


if __name__ == "__main__":
    main()
