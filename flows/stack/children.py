"""Processes of the stack: how one is started, found again and ended. Knows processes, ports, logs; knows no server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prorec.tasks.local import paths, processes
from prorec_core.errors import UserError

HOST = "127.0.0.1"
MARK = "PROREC_STACK"
"""The variable that holds a stack's mark in the environment of its processes."""

_LONGEST_LOG = 10 * 2**20
_PAUSE = 0.05
_SECONDS_TO_DIE = 20.0


@dataclass(frozen=True)
class Program:
    """A program of the stack.

    Attributes:
        name: its name in states and logs.
        command: what is typed to start it.
        environment: all of its environment but the mark.
        answers: whether it does its work, given when it was started.
        needs: the programs that must do theirs before it starts.
        once: whether it ends by itself when its work is done.
        seconds_to_stop: how long it may take to end when asked to.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    answers: Callable[[datetime], bool]
    needs: tuple[str, ...] = ()
    once: bool = False
    seconds_to_stop: float = 10.0


def start(program: Program, log: Path, mark: str) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, with its output at the end of `log`.

    The caller must handle SIGINT: what it ignores its children ignore, and a worker that ignores it cannot be ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=paths.project_root(),
            env={**program.environment, MARK: mark},
            start_new_session=True,
        )


def free_port(wanted: int | None, usual: int, option: str) -> int:
    """The port `wanted` if it is free; with no wish the usual one, or any other where that is taken.

    Raises:
        UserError: the wanted port is taken.
    """
    if wanted is not None:
        if not _is_free(wanted):
            raise UserError(
                f"port {wanted} is taken by another program",
                place=option,
                cure="Choose another, or leave the option out and a free one is found",
            )
        return wanted
    if _is_free(usual):
        return usual
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are only just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def marked(mark: str) -> list[int]:
    """The processes that were started with this mark, and what they started; empty where the system cannot tell."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid() and processes.started(pid)]


def session(pid: int) -> int | None:
    """The session of a process; None if it is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def end(
    pids: Iterable[int], gone: Callable[[], bool], seconds: float, hurry: Callable[[], bool] = lambda: False
) -> None:
    """Ask processes, and the groups that they lead, to end; after `seconds`, or in a hurry, end them."""
    asked = list(pids)
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if gone():
            return
        for pid in asked:
            _signal(pid, kind)
        # Nothing ignores the second; a busy machine only takes its time.
        deadline = time.monotonic() + (seconds if kind is signal.SIGTERM else _SECONDS_TO_DIE)
        while not gone() and time.monotonic() < deadline and not (hurry() and kind is signal.SIGTERM):
            time.sleep(_PAUSE)


def _signal(pid: int, kind: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, kind)
        else:
            os.kill(pid, kind)


def bound(log: Path) -> None:
    """Keep a log from growing for ever: past 10 MiB, what it holds becomes the one older log."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LONGEST_LOG:
            # Its writer keeps the file open for appending, so it is emptied and not replaced.
            shutil.copyfile(log, log.with_suffix(".old.log"))
            os.truncate(log, 0)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
