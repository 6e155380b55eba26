"""The peak is that of the work, and what is left is what the narrowest limit leaves."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prorec.tasks.local import memory
from prorec.tasks.local.memory import OF_PROCESS, OF_STAGE, SAMPLED, Room, peak_memory, room

MIB = 2**20
linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")


def _take(mib: int, seen: Callable[[], None]) -> None:
    """Hold so much, asked of the kernel: malloc may have room in what was freed before, which is resident already."""
    with mmap.mmap(-1, mib * MIB) as held:
        for _ in range(mib):
            held.write(bytes(MIB))
        seen()


@linux
@pytest.mark.parametrize("how", [OF_STAGE, SAMPLED])
def test_the_peak_is_of_the_work_and_not_of_what_was_before(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, status = 0, memory._status

    def look(name: str) -> int | None:
        nonlocal looked
        size = status(name)
        looked += 1
        return size

    def seen() -> None:
        """Wait until it was looked at all that is held: a look that had begun before may have seen less."""
        before, deadline = looked, time.monotonic() + 60
        while how == SAMPLED and looked < before + 2:
            assert time.monotonic() < deadline, "nobody looks"
            time.sleep(0.001)

    if how == SAMPLED:
        monkeypatch.setattr(memory, "_set_back", lambda: False)
        monkeypatch.setattr(memory, "_status", look)
    elif not memory._set_back():
        pytest.skip("the kernel's mark cannot be set back here")
    _take(300, lambda: None)
    with peak_memory() as small:
        _take(8, seen)
    with peak_memory() as large:
        _take(300, seen)
    assert small.how == large.how == how
    assert small.device_bytes is None
    assert 200 * MIB < large.bytes - small.bytes < 400 * MIB


KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**26)}
FREED = """
import numpy as np
from prorec.tasks.local.memory import _status, give_back
np.ones(2**25).sum()
kept = _status("VmRSS")
give_back()
print(kept - _status("VmRSS"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed at these settings")
def test_what_was_freed_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FREED], env={**os.environ, **KEEPING}, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 200 * MIB


def test_what_cannot_be_told_of_the_work_is_called_the_processs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    with peak_memory() as found:
        pass
    assert found.how == OF_PROCESS and found.bytes > 10 * MIB
    assert room() is None


def test_a_peak_is_known_of_work_that_fails_too() -> None:
    with pytest.raises(RuntimeError), peak_memory() as found:
        raise RuntimeError
    assert found.bytes > 0


def _write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


MEMINFO = "MemTotal: 8192 kB\nMemAvailable: 4096 kB\nSwapTotal: 1024 kB\nSwapFree: 512 kB\nHugePages_Total: 0\n"


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/", {}, (4608, 9216)),
        # Unified: the limit may be the group's or that of one above; a limit that is none says "max".
        ("0::/a/b", {"a/memory.max": "max", "a/memory.current": "0", "a/memory.stat": ""}, (4608, 9216)),
        (
            "0::/a/b",
            {"a/memory.max": f"{2048 * 1024}", "a/memory.current": f"{1024 * 1024}", "a/memory.stat": "anon 1\n"},
            (1024, 3072),
        ),
        # Cached files do not count.
        (
            "0::/a/b",
            {
                "a/b/memory.max": f"{2048 * 1024}",
                "a/b/memory.current": f"{1024 * 1024}",
                "a/b/memory.stat": f"inactive_file {512 * 1024}\nactive_file 99\n",
            },
            (1536, 3072),
        ),
        # Of a container's path only the root is seen.
        (
            "4:cpu,memory:/docker/1234",
            {
                "memory/memory.limit_in_bytes": f"{1024 * 1024}",
                "memory/memory.usage_in_bytes": f"{2048 * 1024}",
                "memory/memory.stat": "total_inactive_file 0\n",
            },
            (0, 2048),
        ),
    ],
)
def test_the_narrowest_limit_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    group: str,
    files: dict[str, str],
    expected: tuple[int, int],
) -> None:
    _write(tmp_path, "proc/meminfo", MEMINFO)
    _write(tmp_path, "proc/self/cgroup", f"9:name=systemd:/\n{group}\n")
    for name, text in files.items():
        _write(tmp_path, f"cgroup/{name}", text)
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    available, total = (kib * 1024 for kib in expected)
    assert room() == Room(available, total)


@linux
def test_this_machine_has_some() -> None:
    found = room()
    assert found is not None and 0 < found.available <= found.total
