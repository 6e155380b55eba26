"""One of several processes that work side by side; run as a program, this module is it.

Knows the pipes to the process that gives the orders, and where a job's function is; knows nothing of stages. The other
process's end closes the pipe of orders, and then this one is gone at once, as if it had been killed together with it:
what it leaves open is closed as that of a dead process.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from prorec.tasks.execution.events import Event

JOBS: Mapping[str, str] = {"variant": "prorec.flows.variant:variant_job", "trial": "prorec.flows.trial:trial_job"}
"""What does an order, by the name of what is to be done: takes the order and `Ask`, returns JSON."""

Ask = Callable[[Any], Any]
"""Puts a question, as JSON, to the process that gave the order; returns the answer."""

_GONE = 1
_REFUSED = 2


class _Pipes:
    """What this process is told and what it says, a line a message."""

    def __init__(self) -> None:
        self._said = os.fdopen(os.dup(1), "w")
        # Whatever else writes there must not be taken for a message.
        os.dup2(2, 1)
        self._order: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._answer: SimpleQueue[Any] = SimpleQueue()
        self._one_at_a_time = threading.Lock()
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def _listen(self) -> None:
        # Not by way of Python's stream, whose lock this thread would hold when the process ends.
        rest = b""
        while piece := os.read(0, 2**16):
            *lines, rest = (rest + piece).split(b"\n")
            for message in map(json.loads, lines):
                if "answer" in message:
                    self._answer.put(message["answer"])
                else:
                    self._order.put(message)
        os._exit(_GONE)

    def say(self, message: Mapping[str, Any]) -> None:
        with self._one_at_a_time:
            self._said.write(json.dumps(message) + "\n")
            self._said.flush()

    def order(self) -> dict[str, Any]:
        return self._order.get()

    def ask(self, question: Any) -> Any:
        self.say({"ask": question})
        return self._answer.get()


def _work(pipes: _Pipes, cores: list[int]) -> None:
    from prorec.flows.local import elsewhere
    from prorec.flows.local.embedded import quiet, stop_like_ctrl_c
    from prorec.flows.local.running import debugging

    stop_like_ctrl_c()
    elsewhere.expect_stores()
    # They count the cores when they are loaded.
    import numpy as np  # noqa: F401
    import torch

    from prorec.tasks.execution.events import as_json, listening
    from prorec.tasks.local.processes import sign_of_life
    from prorec.tasks.tracking.mlflow_runs import client
    from prorec_core.threads import run_on

    torch.get_num_threads()
    run_on(cores)

    def handle(event: Event) -> None:
        pipes.say({"event": as_json(event)})

    if not debugging():
        quiet(handle)
    client()
    pipes.say({"ready": sign_of_life()})
    with listening(handle):
        while (order := pipes.order())["do"] != "end":
            pipes.say(_outcome(order, pipes.ask))


def _outcome(order: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    from prorec.tasks.local.machine_errors import explained
    from prorec.tasks.local.stopping import stops_kept
    from prorec.tasks.tracking.retries import TrackingAwayError
    from prorec_core.errors import MachineError, with_line

    module, _, name = JOBS[order["do"]].partition(":")
    try:
        with stops_kept():
            return {"result": getattr(importlib.import_module(module), name)(order, ask)}
    except Exception as error:
        traceback.print_exc()
        told = explained(error) or error
        kinds = {MachineError: "machine", TrackingAwayError: "away", MemoryError: "memory"}
        kind = next((name for kind, name in kinds.items() if isinstance(told, kind)), "own")
        return {"failed": {"kind": kind, "reason": with_line(told)}}


def main() -> None:
    """Do what one is told to, until there is nothing more."""
    pipes, status = _Pipes(), 0
    try:
        _work(pipes, [int(core) for core in sys.argv[-1].split(",") if core])
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        if not _is_told(error):
            raise
        status = _REFUSED
    _leave(status)


def _is_told(error: Exception) -> bool:
    """Whether that is a mistake of the user's, which is then said in one line."""
    from prorec.flows.terminal.screen import say
    from prorec_core.errors import UserError

    if isinstance(error, UserError):
        say(str(error), error=True)
    return isinstance(error, UserError)


def _leave(status: int) -> NoReturn:
    """End without what Python does for a second or more to take down all that was imported; nothing else is open."""
    if "prefect" in sys.modules:
        from prorec.tasks.execution.prefect_run import send_all

        send_all()
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    main()
