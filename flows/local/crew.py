"""Jobs side by side, in processes of their own, each on its share of this machine's cores.

Knows processes, pipes and events; knows nothing of what a job is: `member`, the program in those processes, finds the
function that does it. All that goes over the pipes is JSON, a line a message. Where this process ends, however it does,
the pipes are closed and the others end too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any

from prorec.flows.local.running import debugging
from prorec.tasks.execution.events import Beside, StageStarted, emit, from_json
from prorec.tasks.local import paths
from prorec.tasks.local.stopping import SECONDS_TO_CLOSE
from prorec.tasks.tracking.retries import TrackingAwayError
from prorec_core.config_compute import ComputeConfig
from prorec_core.errors import MachineError, UserError
from prorec_core.threads import SHARING, shares

PROGRAM = ("-m", "prorec.flows.local.member")
_LONGEST_TAIL = 4000


def expect_shares(count: int, compute: ComputeConfig) -> None:
    """Refuse what cannot run side by side, before anything is done for it.

    Raises:
        UserError: each of several processes would start a cluster of its own on this machine.
    """
    if count > 1 and compute.engine == "ray" and compute.address is None:
        raise UserError(
            "each of them would start a Ray cluster of its own on this machine",
            place="--parallel",
            cure="Set compute.address to a cluster that they share, or compute.engine=local",
        )


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
        fatal: what every other job would meet, too, to be raised; None where it is the job's own failure.
    """

    result: Any = None
    reason: str = ""
    stage: str = ""
    died: bool = False
    fatal: Exception | None = None


@dataclass
class _Member:
    """One of the processes, and the job that it is at."""

    slot: int
    process: subprocess.Popen[str]
    said: IO[bytes]
    job: Job | None = None
    stage: str = ""
    ready: bool = False

    def send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # Its end is noticed by whoever reads what it says.

    def last_words(self) -> str:
        self.said.seek(0, os.SEEK_END)
        self.said.seek(max(0, self.said.tell() - _LONGEST_TAIL))
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


@dataclass
class Crew:
    """Some processes that work through jobs; a context, at whose end they are gone.

    Attributes:
        count: how many.
        environment: what they are told beside this process's environment.
    """

    count: int
    environment: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Crew:
        self._shares = shares(self.count)
        self._messages: SimpleQueue[tuple[_Member, dict[str, Any] | None]] = SimpleQueue()
        self._members: list[_Member] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            if kind is None or member.job is None:
                # It has nothing open, and ends in order.
                member.send({"do": "end"})
            else:
                member.process.terminate()
        deadline = time.monotonic() + SECONDS_TO_CLOSE + 2
        for member in self._members:
            try:
                member.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
            member.said.close()

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
            # Nothing is begun before somebody is free for it.
            while self._has_room() and (todo := following()) is not None:
                self._begin(self._free(), todo)
            if not any(member.job for member in self._members):
                return
            member, message = self._messages.get()
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
        return sum(member.job is not None for member in self._members) < self.count

    def _free(self) -> _Member:
        """A process that has nothing to do, started where there is none."""
        return next((member for member in self._members if member.job is None), None) or self._start()

    def _begin(self, member: _Member, job: Job) -> None:
        member.job, member.stage = job, ""
        member.send(job.order)

    def _start(self) -> _Member:
        slot = min(set(range(self.count)) - {member.slot for member in self._members})
        cores = ",".join(map(str, self._shares[slot]))
        said = TemporaryFile()  # noqa: SIM115 it is open as long as the process
        process = subprocess.Popen(
            [sys.executable, *PROGRAM, *(["--debug"] if debugging() else []), cores],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debugging() else said,
            text=True,
            cwd=paths.project_root(),
            env={**os.environ, **SHARING, **self.environment, paths.ARTIFACTS_VARIABLE: str(paths.artifacts())},
            # A Ctrl-C of the terminal is for this process, which ends the others.
            start_new_session=True,
        )
        member = _Member(slot, process, said)
        self._members.append(member)
        threading.Thread(target=self._listen, args=(member,), name="member", daemon=True).start()
        return member

    def _listen(self, member: _Member) -> None:
        assert member.process.stdout is not None
        for line in member.process.stdout:
            self._messages.put((member, json.loads(line)))
        self._messages.put((member, None))

    def _heard(self, member: _Member, message: Mapping[str, Any]) -> Outcome | None:
        job = member.job
        if "ready" in message:
            member.ready = True
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
        status = member.process.wait()
        self._members.remove(member)
        words = member.last_words()
        member.said.close()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        if not member.ready:
            raise MachineError(f"a process for work beside could not start ({how}): {words or 'it said nothing'}")
        if member.job is None:
            return None
        memory = "; the machine may lack memory for so many side by side" if status == -signal.SIGKILL else ""
        return Outcome(reason=f"its process died ({how}{memory})", stage=member.stage, died=True)


def _failed(failure: Mapping[str, str], stage: str) -> Outcome:
    reason = failure["reason"]
    fatal: dict[str, Callable[[str], Exception]] = {
        "machine": MachineError,
        "away": TrackingAwayError,
        "memory": MemoryError,
    }
    kind = fatal.get(failure["kind"])
    return Outcome(reason=reason, stage=stage, fatal=kind(reason) if kind else None)
