"""The folder that is watched: which files are taken, and in which order."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from prorec.flows.items import waiting
from prorec.tasks.execution.events import Notice, listening
from prorec.tasks.registry import changes
from prorec_core.errors import UserError


def write(path: Path, age: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(path.name))
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
    told: list[str] = []
    with listening(lambda event: told.append(event.text) if isinstance(event, Notice) else None):
        waiting(tmp_path, 60)
    assert len(told) == 1 and "add/folder.csv and 2 more not taken: a file ends in" in told[0], told
    assert [(each.kind, each.file.name) for each in waiting(tmp_path, 60)[0]] == [
        ("remove", "first.txt"),
        ("add", "second.csv"),
        ("add", "third.parquet"),
    ]
    assert "just now.csv" in {each.file.name for each in waiting(tmp_path, 0)[0]}


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    write(tmp_path / "beside" / "new.csv", 200.0)
    for name in ("nowhere", "beside"):
        with pytest.raises(UserError, match="there is no such folder, or none with add and remove in it"):
            waiting(tmp_path / name, 60)


def test_a_file_of_a_time_to_come_is_told(tmp_path: Path) -> None:
    for name, age in {"add/early.csv": -7_200.0, "add/skewed.csv": -20.0, "add/old.csv": 200.0}.items():
        write(tmp_path / name, age)
    changes, refused = waiting(tmp_path, 60)
    assert [each.file.name for each in changes] == ["old.csv"]
    assert len(refused) == 1 and "early.csv: it was written at a time to come (20" in refused[0]


def test_one_that_cannot_be_read_keeps_no_other_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("add/bad.csv", "add/good.csv", "add/taken.csv"):
        write(tmp_path / name, 200.0)

    def sha256(path: Path) -> str:
        if path.name == "bad.csv":
            raise PermissionError(13, "Permission denied")
        if path.name == "taken.csv":
            path.unlink()
        return "1" * 64 if path.exists() else path.read_text()

    monkeypatch.setattr(changes, "sha256_file", sha256)
    found, refused = waiting(tmp_path, 60)
    assert [each.file.name for each in found] == ["good.csv"]
    assert len(refused) == 1 and "bad.csv" in refused[0] and "ermission" in refused[0], refused


def test_a_name_that_is_not_in_utf8_keeps_no_other_away(tmp_path: Path) -> None:
    """As old file transfers write them. What is told of them goes into logs and databases, which take UTF-8 alone."""
    for name in ("add/caf\udce9.csv", "add/caf\udce9.doc", "add/good.csv"):
        write(tmp_path / name, 200.0)
    write(tmp_path / "add" / "sp\udce9t.csv", -7_200.0)
    told: list[str] = []
    with listening(lambda event: told.append(event.text) if isinstance(event, Notice) else None):
        found, refused = waiting(tmp_path, 60)
    assert [each.file.name for each in found] == ["good.csv"]
    assert sorted("not in UTF-8. Rename it" in each for each in refused) == [False, True]
    assert len(told) == 1 and "caf" in told[0]
    for text in (*refused, *told):
        text.encode()
