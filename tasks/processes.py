"""Which process a run belongs to, and whether it still lives. Knows nothing of tracking or of stages."""

from __future__ import annotations

import os
import socket
import subprocess
from functools import cache
from pathlib import Path


def started(pid: int) -> str | None:
    """When a process of this machine started, as an opaque text that no later process repeats; None if it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").is_file():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        # A zombie holds its number but does no more work.
        return None if fields[0] in "ZX" else f"{_boot()}/{fields[19]}"
    shown = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    )
    return shown.stdout.strip() or None


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@cache
def host() -> str:
    """This machine's name."""
    return socket.gethostname()


def identity() -> dict[str, str]:
    """What identifies the present process: host, pid and start."""
    return {"host": host(), "pid": str(os.getpid()), "started": started(os.getpid()) or ""}


def is_dead(process: dict[str, str]) -> bool:
    """Whether a process with such an `identity` is known to be gone; one on another host never is."""
    if process.get("host") != host() or not process.get("pid", "").isdigit():
        return False
    return started(int(process["pid"])) != process.get("started")
