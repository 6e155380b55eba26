"""What an owner leaves behind is gone with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prorec.tasks.local import left_behind

_OWNER = """
import os, subprocess, sys, time
from pathlib import Path
from prorec.tasks.local import left_behind
left_behind.watch("PROREC_TEST_MARK=" + sys.argv[1], Path(sys.argv[2]))
child = subprocess.Popen(["sleep", "60"], env={**os.environ, "PROREC_TEST_MARK": sys.argv[1]}, start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="this system shows no environments")


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_what_a_killed_owner_started_is_ended_and_its_folder_removed(tmp_path: Path) -> None:
    folder = tmp_path / "sockets"
    folder.mkdir()
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(os.getpid()), str(folder)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    assert not _gone(child)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    last = time.monotonic() + 20
    while time.monotonic() < last and not (_gone(child) and not folder.exists()):
        time.sleep(0.05)
    assert _gone(child)
    assert not folder.exists()


def test_a_mark_is_a_whole_variable(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "PROREC_TEST_MARK": "12"}) as other:
        left_behind.end("PROREC_TEST_MARK=1", tmp_path / "none")
        assert other.poll() is None
        left_behind.end("PROREC_TEST_MARK=12", tmp_path / "none")
        assert other.wait(5) == -9
