"""A program that one talks to by lines: its standard input and output carry them, and its end closes both.

Knows processes, pipes and a program's last words; knows nothing of what is said, nor of other machines: `Program` is
what whoever talks to it needs, wherever it runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Protocol

from prorec.tasks.local import paths

_LONGEST_TAIL = 4000


@dataclass(frozen=True)
class Ended:
    """How a program came to its end.

    Attributes:
        status: its exit status; below zero the signal that killed it; None where its machine is gone, or what held it
            there, so that nobody knows.
        words: the last line that it wrote beside what it said.
    """

    status: int | None
    words: str = ""

    def __str__(self) -> str:
        if self.status is None:
            return "its machine, or Ray's process there, is gone"
        return f"signal {signal.Signals(-self.status).name}" if self.status < 0 else f"status {self.status}"


class Program(Protocol):
    """One that is talked to by lines."""

    def send(self, line: str) -> None:
        """Have it read a line; nothing happens where it is gone."""

    def lines(self) -> Iterator[str]:
        """What it says, until its end."""

    def stop(self) -> None:
        """Ask it to end (SIGTERM)."""

    def end(self, seconds: float) -> Ended:
        """Wait for its end; after `seconds` it is killed."""


class Piped:
    """A program of this Python, on this machine.

    Args:
        words: what follows the interpreter on the command line.
        environment: all of it.
        shown: what it writes to its standard error goes where this process's does, and is not kept.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], *, shown: bool = False) -> None:
        self._said = TemporaryFile()  # noqa: SIM115 it is open as long as the process
        self._process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if shown else self._said,
            text=True,
            cwd=paths.project_root(),
            env=environment,
            # A Ctrl-C of the terminal is for this process, which ends the other.
            start_new_session=True,
        )

    def send(self, line: str) -> None:
        """Have it read a line; nothing happens where it is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # Its end is noticed by whoever reads what it says.

    def line(self) -> str:
        """The next line that it says, with its end; empty once it says no more."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def lines(self) -> Iterator[str]:
        """What it says, until its end."""
        while line := self.line():
            yield line

    def stop(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._process.terminate()

    def end(self, seconds: float) -> Ended:
        """Wait for its end; after `seconds` it is killed."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        ended = Ended(self._process.returncode, self._last_words())
        self._said.close()
        return ended

    def _last_words(self) -> str:
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - _LONGEST_TAIL))
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
