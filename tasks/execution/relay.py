"""A program on whatever machine of a Ray cluster has room for it, and its lines, which an actor there passes on.

Knows Ray's actors; knows nothing of what is said. The actor starts the program as a process of its machine and holds
its pipes: where the actor ends, as with its machine, with the cluster, or with whoever started it, they are closed, and
a program that ends with them is gone. What it is told beside its command line Ray carries in messages between its own
processes, behind the cluster's token; on no command line, and in nothing that is kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prorec.tasks.local.piped import Ended, Piped
from prorec_core.errors import one_line

_AT_ONCE = 4
"""Calls that an actor takes at a time: one waits for the next line, one may wait for the end."""

_SECONDS_TO_ANSWER = 5.0
_OF_WORKERS = ("RAY_JOB_ID", "RAY_RAYLET_PID", "PYTHONBREAKPOINT")
"""Variables of Ray's own processes, which a program that joins the cluster must not take for its own."""

_log = logging.getLogger(__name__)


class _Relay:
    """Has the program; an actor, in a process that Ray started."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        own = {name: value for name, value in os.environ.items() if name not in _OF_WORKERS}
        self._program = Piped(words, {**own, **environment})

    def line(self) -> str:
        """The next line that it says; empty once it says no more."""
        return self._program.line()

    def send(self, line: str) -> None:
        """Have it read a line."""
        self._program.send(line)

    def stop(self) -> None:
        """Ask it to end."""
        self._program.stop()

    def end(self, seconds: float) -> Ended:
        """Wait for its end."""
        return self._program.end(seconds)


class Relayed:
    """A program of the Python of whatever machine has room for it; it waits where none has.

    Args:
        words: what follows the interpreter on the command line.
        environment: what it is told beside the environment of Ray's processes on that machine.
        cores: that are kept for it.
        gpus: that are kept for it, which alone it sees.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], *, cores: int, gpus: int) -> None:
        import ray

        kind: Any = ray.remote(_Relay).options(num_cpus=cores, num_gpus=gpus, max_restarts=0, max_concurrency=_AT_ONCE)
        self._actor = kind.remote(list(words), {**environment, **({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})})
        self._placed = False
        self._why = ""

    def send(self, line: str) -> None:
        """Have it read a line; nothing happens where it is gone."""
        self._actor.send.remote(line)

    def lines(self) -> Iterator[str]:
        """What it says, until its end or its machine's."""
        import ray

        try:
            while line := ray.get(self._actor.line.remote()):
                self._placed = True
                yield line
            self._placed = True
        except ray.exceptions.RayError as error:
            self._why = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")
            _log.info("A process for work beside is lost: %s", one_line(error))

    def stop(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._actor.stop.remote()

    def end(self, seconds: float) -> Ended:
        """Wait for its end; after `seconds` it is killed, and at once where it has not said anything yet."""
        import ray

        try:
            if not self._placed:
                return Ended(None, self._why)
            found: Ended = ray.get(self._actor.end.remote(seconds), timeout=seconds + _SECONDS_TO_ANSWER)
        except ray.exceptions.RayError:
            return Ended(None, self._why)
        else:
            return found
        finally:
            ray.kill(self._actor)
