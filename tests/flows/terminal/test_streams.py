"""Streams that cannot be written, and packages of others under our names: one line, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prorec.flows.local.running import expect_output
from prorec_core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
FULL = Path("/dev/full")


def _shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PROREC_ARTIFACTS": str(folder), "PYTHONPATH": str(ROOT), **variables}
    environment["PRORECX"] = f"{sys.executable} -m prorec"
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=100
    )


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", ["config schema", "config show", "--help"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_to_a_full_device_is_one_line(words: str, unbuffered: str, tmp_path: Path) -> None:
    done = _shell(f"$PRORECX {words} > /dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    assert done.stderr == (
        "prorec: standard output cannot be written (No space left on device). "
        "Look at where it leads, and at the room there.\n"
    )


@pytest.mark.parametrize("line", ["$PRORECX config schema | head -1", "$PRORECX config schema | true"])
def test_a_reader_that_has_enough_is_no_mistake(line: str, tmp_path: Path) -> None:
    done = _shell(line, tmp_path)
    assert done.stderr == "" and done.stdout in {"", "{\n"}


def test_closed_and_narrow_streams(tmp_path: Path) -> None:
    assert _shell("$PRORECX config show >&-", tmp_path).returncode == 0
    assert _shell("$PRORECX config show nothing 2>&-", tmp_path).returncode == 2
    assert _shell("$PRORECX config show nothing 2>/dev/full", tmp_path).returncode == 2
    narrow = _shell("$PRORECX artifacts list && $PRORECX config schema", tmp_path, PYTHONIOENCODING="ascii")
    assert narrow.returncode == 0 and narrow.stderr == ""


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    for file, message in (
        (Path("/dev/null"), "--json /dev/null: this is a device"),
        (tmp_path, "this is a folder"),
        (tmp_path / "no" / "x", "the folder does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            expect_output("--json", file)
    expect_output("--json", tmp_path / "x.json")


@pytest.mark.parametrize("words", ["artifacts verify", "run demo", "up", "recommend --model x --history a"])
def test_a_file_in_the_place_of_the_folder_is_one_line(words: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = _shell(f"$PRORECX {words}", tmp_path / "file")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"prorec: PROREC_ARTIFACTS {tmp_path}/file: this is a file. Name a folder.\n"


def test_modules_of_others_by_our_folders_names_are_left_alone(tmp_path: Path) -> None:
    for name in ("tasks", "flows"):
        (tmp_path / f"{name}.py").write_text("print('it ran')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "prorec", "config", "show"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=60, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("name: demo")
