"""What a process started and left behind is ended, and its folder removed, however that process came to its end.

Knows processes by a mark in their environment, and the small process that waits for the owner's end: run as a program,
this module is it. Knows nothing of what was started. Where a system does not show environments, nothing is ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PROC = Path("/proc")
_PATIENCE = 5.0
"""Seconds in which new ones are looked for: what is ended may just be starting another."""
_PAUSE = 0.1


def watch(mark: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start the process that calls `end` once this one is gone, or has closed its standard input.

    Args:
        mark: `NAME=VALUE` in the environment of all that is to be ended, and of nothing else.
        folder: is removed then.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, mark, str(folder), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        # A Ctrl-C of the terminal is for the owner.
        start_new_session=True,
    )


def dismiss(watcher: subprocess.Popen[bytes]) -> None:
    """Have the watcher end what is left, and wait for it."""
    assert watcher.stdin is not None
    watcher.stdin.close()
    watcher.wait()


def end(mark: str, folder: Path) -> None:
    """Kill all processes of this user with the mark, until there are none, and remove the folder."""
    last = time.monotonic() + _PATIENCE
    while (found := _marked(mark)) and time.monotonic() < last:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)
    shutil.rmtree(folder, ignore_errors=True)


def _marked(mark: str) -> list[int]:
    found, wanted = [], mark.encode()
    for place in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # A zombie shows no environment.
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def _wait(owner: int) -> None:
    """Until the owner is gone; other children of it may hold its end of the pipe open."""
    while os.getppid() == owner:
        if select.select([0], [], [], 1.0)[0] and not os.read(0, 64):
            return


if __name__ == "__main__":
    # A service manager tells all processes of a service to end; this one is needed until the owner is gone.
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        _wait(int(sys.argv[3]))
    end(sys.argv[1], Path(sys.argv[2]))
