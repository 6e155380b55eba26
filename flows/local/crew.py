"""Jobs side by side, in processes of their own, on shares of this machine's cores or wherever a cluster has room.

Knows events, and programs that are talked to by lines; knows nothing of what a job is, nor of where a process is:
`member`, the program in those processes, finds the function that does it. All that is said is JSON, a line a message.
Where this process ends, however it does, what carries the lines is closed and the others end too.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from prorec.flows.local.running import debugging
from prorec.tasks.execution.events import Beside, Notice, StageStarted, emit, from_json
from prorec.tasks.local import paths
from prorec.tasks.local.piped import Piped, Program
from prorec.tasks.local.stopping import SECONDS_TO_CLOSE
from prorec.tasks.tracking.retries import TrackingAwayError
from prorec_core.errors import MachineError
from prorec_core.threads import SHARING, shares

PROGRAM = ("-m", "prorec.flows.local.member")
_SECONDS_TO_END = SECONDS_TO_CLOSE - 2
"""This process is ended itself after SECONDS_TO_CLOSE, and has its own to close once the others have ended."""
_SECONDS_TO_BEGIN = 120.0
"""After so long without room for a process the user is told."""
_TRIES = 3
"""Machines that may be lost one after another while a process begins."""
_log = logging.getLogger(__name__)

Start = Callable[[int], Program]
"""Starts `member`, given which of several it is, from 0."""


def here(count: int, environment: Mapping[str, str] | None = None) -> Start:
    """Have processes of this machine, as many as are said, each on its share of the cores.

    Args:
        count: how many there will be at most.
        environment: what they are told beside this process's environment.
    """
    cut = shares(count)

    def start(slot: int) -> Program:
        own = {paths.ARTIFACTS_VARIABLE: str(paths.artifacts())}
        told = {**os.environ, **SHARING, **(environment or {}), **own}
        return Piped(words(",".join(map(str, cut[slot]))), told, shown=debugging())

    return start


def words(cores: str = "") -> list[str]:
    """The command line of `member`, after the interpreter; without cores it may use all that it finds."""
    return [*PROGRAM, *(["--debug"] if debugging() else []), cores]


@dataclass
class Job:
    """A piece of work for another process.

    Attributes:
        name: what all that happens in it is told with.
        order: what is to be done, as JSON: `do`, one of `member.JOBS`, and its arguments.
        answer: what it is told when it asks, as JSON.
    """

    name: str
    order: Mapping[str, Any]
    answer: Callable[[Any], Any] = lambda _: None


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        result: what it returned, as JSON; None where it failed.
        reason: why it failed, in one line.
        stage: the stage that was at work then, if one was.
        died: its process did.
        sign: of life of that process, as `processes.sign_of_life`; empty where it gave none.
        fatal: what every other job would meet, too, to be raised; None where it is the job's own failure.
    """

    result: Any = None
    reason: str = ""
    stage: str = ""
    died: bool = False
    sign: str = ""
    fatal: Exception | None = None


@dataclass
class _Member:
    """One of the processes, and the job that it is at."""

    slot: int
    program: Program
    job: Job | None = None
    stage: str = ""
    ready: bool = False
    sign: str = ""

    def send(self, message: Mapping[str, Any]) -> None:
        self.program.send(json.dumps(message))


@dataclass
class Crew:
    """Some processes that work through jobs; a context, at whose end they are gone.

    Attributes:
        count: how many.
        start: starts one of them.
        waits: what the user is told where one has no room for long; nothing where that cannot be.
    """

    count: int
    start: Start
    waits: str = ""

    def __enter__(self) -> Crew:
        self._messages: SimpleQueue[tuple[_Member, dict[str, Any] | None]] = SimpleQueue()
        self._members: list[_Member] = []
        self._todo: deque[Job] = deque()
        self._lost = 0
        self._tell_at = 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            if member.ready and (kind is None or member.job is None):
                # It has nothing open, and ends in order.
                member.send({"do": "end"})
            elif member.ready:
                member.program.stop()
        deadline = time.monotonic() + _SECONDS_TO_END
        for member in self._members:
            # One that has not begun has nothing to close.
            member.program.end(max(0.1, deadline - time.monotonic()) if member.ready else 0.0)

    def work(self, following: Callable[[], Job | None], ended: Callable[[Job, Outcome], None]) -> None:
        """Have jobs done until there are no more.

        Args:
            following: the next job; None where there is none before another one ends.
            ended: called when a job has ended, before the next is asked for.

        Raises:
            MachineError: what one of them met that every other would, too, such as a full disk.
            TrackingAwayError: the tracking store stayed away from one of them.
        """
        while True:
            # Nothing is begun before somebody is free for it, or can be started.
            while self._has_room() and (todo := following()) is not None:
                self._todo.append(todo)
            self._hand_out()
            if not self._todo and not any(member.job for member in self._members):
                return
            member, message = self._next()
            if message is None:
                outcome: Outcome | None = self._died(member)
            else:
                outcome = self._heard(member, message)
            if outcome is None:
                continue
            job, member.job = member.job, None
            assert job is not None
            if outcome.fatal is not None:
                raise outcome.fatal
            ended(job, outcome)

    def _has_room(self) -> bool:
        return len(self._todo) + sum(member.job is not None for member in self._members) < self.count

    def _hand_out(self) -> None:
        """Give jobs to those who are ready, whoever was started for them; start others for the rest."""
        for member in self._members:
            if self._todo and member.ready and member.job is None:
                member.job, member.stage = self._todo.popleft(), ""
                member.send(member.job.order)
        beginning = sum(not member.ready for member in self._members)
        for _ in range(len(self._todo) - beginning):
            self._start()

    def _start(self) -> None:
        slot = min(set(range(self.count)) - {member.slot for member in self._members})
        member = _Member(slot, self.start(slot))
        self._members.append(member)
        self._tell_at = time.monotonic() + _SECONDS_TO_BEGIN
        threading.Thread(target=self._listen, args=(member,), name="member", daemon=True).start()

    def _listen(self, member: _Member) -> None:
        for line in member.program.lines():
            self._messages.put((member, json.loads(line)))
        self._messages.put((member, None))

    def _next(self) -> tuple[_Member, dict[str, Any] | None]:
        """What is said next; where nobody has room to begin, the user is told once."""
        if self.waits and self._tell_at and any(not member.ready for member in self._members):
            try:
                return self._messages.get(timeout=max(0.1, self._tell_at - time.monotonic()))
            except Empty:
                if self._todo:
                    emit(Notice(self.waits))
                self._tell_at = 0.0
        return self._messages.get()

    def _heard(self, member: _Member, message: Mapping[str, Any]) -> Outcome | None:
        job = member.job
        if "ready" in message:
            member.ready, member.sign, self._lost = True, message["ready"], 0
        elif job is None:
            pass  # It was stopped in the moment in which it said so.
        elif "event" in message:
            event = from_json(message["event"])
            if isinstance(event, StageStarted):
                member.stage = event.stage
            emit(Beside(job.name, event))
        elif "ask" in message:
            member.send({"answer": job.answer(message["ask"])})
        elif "result" in message:
            return Outcome(message["result"])
        elif "failed" in message:
            return _failed(message["failed"], member.stage)
        return None

    def _died(self, member: _Member) -> Outcome | None:
        end = member.program.end(_SECONDS_TO_END)
        self._members.remove(member)
        if not member.ready:
            self._lost += 1
            if end.status is not None or self._lost >= _TRIES:
                why = end.words or "it said nothing"
                raise MachineError(f"a process for work beside could not start ({end}): {why}")
            _log.info("A process for work beside was lost before it began: %s", end.words)
            return None
        if member.job is None:
            return None
        memory = "; the machine may lack memory for so many side by side" if end.status == -signal.SIGKILL else ""
        return Outcome(reason=f"its process died ({end}{memory})", stage=member.stage, died=True, sign=member.sign)


def _failed(failure: Mapping[str, str], stage: str) -> Outcome:
    reason = failure["reason"]
    fatal: dict[str, Callable[[str], Exception]] = {
        "machine": MachineError,
        "away": TrackingAwayError,
        "memory": MemoryError,
    }
    kind = fatal.get(failure["kind"])
    return Outcome(reason=reason, stage=stage, fatal=kind(reason) if kind else None)
