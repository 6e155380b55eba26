"""Looks after the processes of the stack: starts them, starts again what died, ends all of them and nothing else.

Knows programs and the written state; knows neither Prefect nor MLflow.
"""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prorec.flows.stack import children, state
from prorec.flows.stack.children import Program
from prorec.flows.stack.state import ChildState, StackState
from prorec.tasks.local import processes
from prorec_core.errors import UserError

EMPLOYER = "worker"
"""The program whose processes, the flow runs, outlive its death and are ended before anything else."""

_TICK = 0.2
_LONGEST_PAUSE = 60.0
_STEADY = 120.0
"""Seconds after which a process that died before counts as well again."""
_TRIES_TO_START = 3
_SECONDS_TO_START = 240.0
_SECONDS_BETWEEN_CHORES = 300.0
_SECONDS_BETWEEN_LOGS = 30.0
_NEVER = datetime.min.replace(tzinfo=UTC)
_log = logging.getLogger("prorec.stack")


@dataclass
class _Child:
    """A program with its process. `due` is when it may be started next (monotonic seconds)."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    begun: float = 0.0
    since: datetime = _NEVER
    due: float = 0.0
    done: bool = False


def log_file(name: str) -> Path:
    """The log of a program of the stack; `stack` is the supervisor's own."""
    return state.folder() / f"{name}.log"


@contextmanager
def alone() -> Iterator[bool]:
    """Hold the right to be the supervisor of this folder; gives False where another process has it."""
    state.folder().mkdir(parents=True, exist_ok=True)
    with (state.folder() / "lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def clear_left_over(left: StackState | None, seconds: float = 10.0) -> list[str]:
    """End what a supervisor that was killed left running, and forget it; returns the names of what was ended.

    Only processes of this machine with the number and the start that were written down are touched, and what they
    started: it carries the stack's mark. Each may take `seconds`.
    """
    if left is None:
        return []
    living = {name: child for name, child in left.children.items() if left.here() and child.alive()}
    work = _work(left) if left.here() else []
    children.end(work, lambda: not _work(left), seconds)
    pids = [child.pid for child in living.values() if child.pid is not None]
    children.end(pids, lambda: not any(child.alive() for child in living.values()), seconds)
    strays = children.marked(left.mark) if left.here() else []
    children.end(strays, lambda: not children.marked(left.mark), seconds)
    state.forget()
    return [*living, *(["unfinished work"] if work else [])]


def _work(stack: StackState) -> list[int]:
    """Processes of flow runs and chores: marked ones that are no program of the stack, nor of one but the worker."""
    own = {child.pid for child in stack.children.values()}
    others = {child.pid for name, child in stack.children.items() if name != EMPLOYER}
    return [pid for pid in children.marked(stack.mark) if pid not in own and children.session(pid) not in others]


class Supervisor:
    """Runs programs until it is told to stop.

    Args:
        stack: what is written down; kept up to date.
        programs: each after those that it needs.
        chores: commands that are run now and then once everything is ready, by name.
        ready: called once, when everything answers.
    """

    def __init__(
        self,
        stack: StackState,
        programs: Sequence[Program],
        chores: Sequence[Program] = (),
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._stack = stack
        self._children = [_Child(program) for program in programs]
        self._chores = [_Child(program) for program in chores]
        self._ready = ready
        self._stop = threading.Event()
        self._hurry = False
        self._unwritten = False

    def run(self) -> None:
        """Start everything and look after it until a signal says stop; then end everything.

        Raises:
            UserError: something cannot be started.
        """
        for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(kind, self._on_signal)
        begun = time.monotonic()
        look_at_logs = begun
        try:
            while not self._stop.is_set():
                for child in self._children:
                    self._look_after(child)
                if self._stack.ready:
                    for chore in self._chores:
                        self._look_after_chore(chore)
                elif all(self._status(child.program.name) in {"running", "done"} for child in self._children):
                    self._stack.ready = True
                    self._write()
                    self._ready()
                elif time.monotonic() > begun + _SECONDS_TO_START:
                    well = {"", "running", "done"}  # what waits for another has no status yet
                    late = [c.program.name for c in self._children if self._status(c.program.name) not in well]
                    raise UserError(
                        f"no answer from {', '.join(late)} for {_SECONDS_TO_START:.0f} seconds",
                        cure=f"See the logs in {state.folder()}",
                    )
                if self._unwritten:
                    self._write()
                if time.monotonic() > look_at_logs:
                    look_at_logs = time.monotonic() + _SECONDS_BETWEEN_LOGS
                    for path in state.folder().glob("*.log"):
                        if not path.name.endswith(".old.log"):
                            children.bound(path)
                self._stop.wait(_TICK)
        finally:
            self._end_all()

    def _on_signal(self, _signal: int, _frame: object) -> None:
        self._hurry = self._stop.is_set()
        self._stop.set()

    def _status(self, name: str) -> str:
        return self._stack.children[name].status if name in self._stack.children else ""

    def _look_after(self, child: _Child) -> None:
        if child.done:
            return
        if child.process is None:
            needs = (self._status(name) in {"running", "done"} for name in child.program.needs)
            if time.monotonic() >= child.due and all(needs):
                self._start(child)
        elif child.process.poll() is not None:
            self._died(child, child.process.returncode)
        elif self._status(child.program.name) == "starting" and child.program.answers(child.since):
            self._note(child, "running")

    def _start(self, child: _Child) -> None:
        name = child.program.name
        child.begun, child.since = time.monotonic(), datetime.now(UTC)
        written = self._stack.children.setdefault(name, ChildState())
        try:
            child.process = children.start(child.program, log_file(name), self._stack.mark)
        except OSError as error:
            if not self._stack.ready:
                raise
            self._put_off(child, f"cannot be started ({error.strerror or error})")
            return
        written.pid = child.process.pid
        written.started = processes.started(child.process.pid) or ""
        self._note(child, "starting")

    def _died(self, child: _Child, code: int) -> None:
        name = child.program.name
        written = self._stack.children[name]
        if name != EMPLOYER:
            # What a killed server had started may still hold its port.
            children.end(self._left_by(written.pid), lambda: not self._left_by(written.pid), 5.0)
        written.pid, written.started, child.process = None, "", None
        if child.program.once and code == 0:
            child.done = True
            self._note(child, "done")
            return
        if time.monotonic() - child.begun > _STEADY:
            written.restarts = 0
        reason = f"ended with status {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        if not self._stack.ready and written.restarts + 1 >= _TRIES_TO_START:
            said = children.last_line(log_file(name))
            raise UserError(f"{name} {reason}{f' ({said})' if said else ''}", cure=f"See {log_file(name)}")
        self._put_off(child, reason)

    def _put_off(self, child: _Child, reason: str) -> None:
        """Have it started again after a pause, each time a longer one."""
        written = self._stack.children[child.program.name]
        written.restarts += 1
        pause = min(2.0 ** (written.restarts - 1), _LONGEST_PAUSE)
        child.due = time.monotonic() + pause
        _log.warning("%s %s; starting it again in %.0f s", child.program.name, reason, pause)
        self._note(child, f"{reason}; being started again")

    def _left_by(self, pid: int | None) -> list[int]:
        return [each for each in children.marked(self._stack.mark) if children.session(each) == pid]

    def _note(self, child: _Child, status: str) -> None:
        self._stack.children[child.program.name].status = status
        self._write()

    def _write(self) -> None:
        """Write down what runs. Once all is ready nothing ends for want of room: it is written when there is some."""
        try:
            self._stack.write()
        except OSError as error:
            if not self._stack.ready:
                raise
            if not self._unwritten:
                _log.warning("what runs cannot be written down (%s); trying again", error.strerror or error)
            self._unwritten = True
        else:
            self._unwritten = False

    def _look_after_chore(self, chore: _Child) -> None:
        if chore.process is not None and (code := chore.process.poll()) is not None:
            chore.process = None
            if code:
                _log.warning("%s ended with status %d, see %s", chore.program.name, code, log_file(chore.program.name))
        if chore.process is None and time.monotonic() >= chore.due:
            chore.due = time.monotonic() + _SECONDS_BETWEEN_CHORES
            try:
                chore.process = children.start(chore.program, log_file(chore.program.name), self._stack.mark)
            except OSError as error:
                _log.warning("%s cannot be started (%s)", chore.program.name, error.strerror or error)

    def _end_all(self) -> None:
        """End everything: flow runs first and servers last, so that what ends can still tell them."""
        _log.info("stopping")
        for child in [*self._chores, *reversed(self._children)]:
            # Time and again: until the worker has ended it may start a flow run.
            children.end(_work(self._stack), lambda: not _work(self._stack), 20.0, self._hurries)
            if (process := child.process) is not None:
                seconds = child.program.seconds_to_stop
                children.end([process.pid], _ended(process), seconds, self._hurries)
        left = children.marked(self._stack.mark)
        children.end(left, lambda: not children.marked(self._stack.mark), 5.0, self._hurries)
        state.forget()

    def _hurries(self) -> bool:
        return self._hurry


def _ended(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    return lambda: process.poll() is not None


def log_to(log: Path) -> None:
    """Have the supervisor's events written to its log, and shown."""
    # A full disk takes no line, and no traceback of that either.
    logging.raiseExceptions = False
    shown = logging.StreamHandler(sys.stdout)
    written = logging.handlers.RotatingFileHandler(log, maxBytes=2**20, backupCount=1, encoding="utf-8")
    written.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    _log.handlers = [shown, written]
    _log.setLevel(logging.INFO)
    _log.propagate = False
