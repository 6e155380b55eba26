"""Which process a run belongs to, and whether it still lives. Knows nothing of tracking or of stages.

A process shows that it lives by a lock on a file of its own in the folder of artifacts. The kernel frees the lock when
the process ends, however it ends, and shows it to containers too, where process numbers and host names mean little.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO
from uuid import uuid4

from prorec.tasks.local import paths

_SIGN = "alive-"
_SECONDS_KEPT = 7 * 24 * 3600.0
_held: dict[Path, tuple[str, IO[str]]] = {}


def sign_of_life() -> str:
    """The name under which others that use this folder of artifacts can ask whether the present process lives."""
    folder = paths.locks()
    if folder not in _held:
        name = uuid4().hex
        _held[folder] = name, _locked(folder / f"{_SIGN}{name}")
    return _held[folder][0]


def _locked(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        stream = path.open("w")
        fcntl.flock(stream, fcntl.LOCK_EX)
        # Whoever removes old ones may have been faster than the lock.
        if path.exists() and path.stat().st_ino == os.fstat(stream.fileno()).st_ino:
            return stream
        stream.close()


def lives(sign: str) -> bool | None:
    """Whether the process with this sign of life lives; None if it showed none in this folder of artifacts."""
    return _is_held(paths.locks() / f"{_SIGN}{sign}") if sign.isalnum() else None


def _is_held(path: Path) -> bool | None:
    try:
        stream = path.open()
    except FileNotFoundError:
        return None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def others_live() -> bool:
    """Whether a process other than the present one shows in this folder of artifacts that it lives."""
    own = {f"{_SIGN}{name}" for name, _ in _held.values()}
    return any(_is_held(path) for path in paths.locks().glob(f"{_SIGN}*") if path.name not in own)


def remove_old_signs() -> None:
    """Remove the signs of processes that died long ago."""
    for path in paths.locks().glob(f"{_SIGN}*"):
        # Another process may remove it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if _is_held(path) is False and time.time() - path.stat().st_mtime > _SECONDS_KEPT:
                path.unlink()


def _drop() -> None:
    """A forked child is another process: its parent's locks must not outlive the parent."""
    for _, stream in _held.values():
        stream.close()
    _held.clear()


os.register_at_fork(after_in_child=_drop)


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
    return os.uname().nodename


def identity() -> dict[str, str]:
    """What identifies the present process: host, pid and start, and where its number counts."""
    own = {"host": host(), "pid": str(os.getpid()), "started": started(os.getpid()) or ""}
    return {**own, "namespace": _namespace()}


@cache
def _namespace() -> str:
    """What tells the process numbers that are seen from here from those of other machines and containers."""
    try:
        return f"{_boot()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return host()


def owner() -> dict[str, str]:
    """What others, here and elsewhere, tell the present process by."""
    return {**identity(), "sign": sign_of_life()}


def is_gone(owner: Mapping[str, str]) -> bool:
    """Whether a process, as `owner` tells of it, is known to be gone; one that cannot be seen from here never is."""
    alive = lives(owner.get("sign", ""))
    if alive is not None:
        return not alive
    if owner.get("namespace") != _namespace() or not owner.get("pid", "").isdigit():
        return False
    return started(int(owner["pid"])) != owner.get("started")


def is_here(process: Mapping[str, str]) -> bool:
    """Whether a process with such an `identity` is or was one of this machine's, whose name may be another by now."""
    return process.get("namespace") == _namespace() or process.get("host") == host()


def is_dead(process: Mapping[str, str]) -> bool:
    """Whether a process with such an `identity` is known to be gone; one on another host never is."""
    if not is_here(process) or not process.get("pid", "").isdigit():
        return False
    return started(int(process["pid"])) != process.get("started")
