"""The folder that is watched: which files are taken, and in which order."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from prorec.flows.items import waiting
from prorec_core.errors import UserError


def write(path: Path, age: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
    os.utime(path, (time.time() - age,) * 2)


def test_files_come_in_the_order_of_their_times_and_half_written_ones_not(tmp_path: Path) -> None:
    for name, age in {
        "add/second.csv": 200.0,
        "remove/first.txt": 300.0,
        "add/third.parquet": 100.0,
        "add/just now.csv": 1.0,
        "add/.hidden.csv": 400.0,
        "add/part.csv.tmp": 400.0,
        "add/ids.txt": 400.0,
        "other/x.csv": 400.0,
    }.items():
        write(tmp_path / name, age)
    (tmp_path / "add" / "folder.csv").mkdir()
    assert [(each.kind, each.file.name) for each in waiting(tmp_path, 60)] == [
        ("remove", "first.txt"),
        ("add", "second.csv"),
        ("add", "third.parquet"),
    ]
    assert "just now.csv" in {each.file.name for each in waiting(tmp_path, 0)}


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        list(waiting(tmp_path / "nowhere", 60))
