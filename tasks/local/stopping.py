"""A process that was asked to end is gone in time, whatever handlers are installed and whatever C code is at work.

Knows signals, and the small process that watches this one: run as a program, this module is it. Knows nothing of runs:
what a process leaves open that was ended so, `tidy` closes.

Python runs a handler between two steps of the main thread. Code of C may keep it from the next step for minutes, and
what a handler raises in the middle of a `__del__` is printed and forgotten. So the interpreter also writes each signal
into a pipe, whoever has a handler for it, and the process at its other end counts the seconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

SECONDS_TO_CLOSE = 8.0
"""How long a process that was asked to end may take to close what is open."""

STATUS = 130
_SECONDS_TO_EXIT = 1.0
_SECONDS_OF_ONE_KEY = 0.5
_PAUSE = 0.1
_TOLD = "\nEnded before all was closed. What was finished is kept: the same command goes on from there.\n"


@dataclass
class _Watch:
    """The process that watches this one, and the pipe that carries this one's signals to it."""

    process: subprocess.Popen[bytes]
    signals: int


_watching: list[_Watch] = []
"""The one that watches this process, or none."""


def end_when_asked(*, interruptions: bool = False, seconds: float = SECONDS_TO_CLOSE) -> None:
    """Have this process be gone `seconds` after SIGTERM, from now to its end; may be called again.

    Where it has not ended by itself, it ends with status 130, or is killed where C code lets no Python run at all. Only
    the main thread can ask for this; elsewhere, and where no process can be started, nothing changes.

    Args:
        interruptions: the same after SIGINT; at once after a second one.
        seconds: it may take to close what is open.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if not _watching:
        with contextlib.suppress(OSError):
            _watching.append(_started(interruptions, seconds))
            _notice_lost_signals()
    for watch in _watching:
        other = signal.set_wakeup_fd(watch.signals, warn_on_full_buffer=False)
        if other not in {-1, watch.signals}:
            # An event loop at work in the main thread needs it, and handles signals itself.
            signal.set_wakeup_fd(other)


def _started(interruptions: bool, seconds: float) -> _Watch:
    reader, signals = os.pipe()
    os.set_blocking(signals, False)
    try:
        watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(seconds), str(int(interruptions))],
            stdin=reader,
            stdout=subprocess.PIPE,
            cwd="/",
            # A Ctrl-C of the terminal is for this process alone.
            start_new_session=True,
        )
    except OSError:
        os.close(signals)
        raise
    finally:
        os.close(reader)
    assert watcher.stdout is not None
    threading.Thread(target=_end_on_request, args=(watcher.stdout.fileno(),), name="stopping", daemon=True).start()
    return _Watch(watcher, signals)


def _end_on_request(word: int) -> None:
    if os.read(word, 1):
        os._exit(STATUS)


def _notice_lost_signals() -> None:
    """Ask once more where what a signal's handler raised was swallowed, as in a `__del__`."""
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs, /) -> None:
        if _watching and _is_stop(lost.exc_value):
            again = threading.Timer(_PAUSE, os.kill, (os.getpid(), signal.SIGTERM))
            again.daemon = True
            again.start()
        else:
            before(lost)

    sys.unraisablehook = hook


@contextlib.contextmanager
def stops_kept() -> Iterator[None]:
    """Where what a signal's handler raised became an ordinary error on its way, raise it all the same.

    Prefect makes one of it in the moment in which a task run is made; nobody may take it for a failure and go on.
    """
    try:
        yield
    except Exception as error:
        for cause in _causes(error):
            if _is_stop(cause):
                raise cause from None
        raise


def _is_stop(error: BaseException | None) -> bool:
    # Prefect's handler raises an exception of its own, which holds the signal.
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, BaseException) and hasattr(error, "signal"))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """As `prorec_core.errors.causes`, but for what was hidden; the program beside imports nothing of the project."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _forget() -> None:
    """A forked child is another process: its signals are not its parent's."""
    for watch in _watching:
        signal.set_wakeup_fd(-1)
        os.close(watch.signals)
    _watching.clear()


os.register_at_fork(after_in_child=_forget)


def _watch(pid: int, seconds: float, interruptions: bool) -> None:
    """Read the signals of the process `pid` from the standard input, until it is gone."""
    asked: float | None = None
    end: float | None = None
    warned, interrupted = False, 0
    while os.getppid() == pid:
        if select.select([0], [], [], None if end is None else _PAUSE)[0]:
            numbers = os.read(0, 64)
            if not numbers:
                return
            for number in numbers:
                now = time.monotonic()
                if number == signal.SIGINT and interruptions:
                    interrupted += 1
                    # The terminal and a program in between may both pass on one key: no more than two of them. Many may
                    # be read at once, where this process has only begun.
                    if interrupted > 2 or (asked is not None and now - asked > _SECONDS_OF_ONE_KEY):
                        end = now
                elif number != signal.SIGTERM:
                    continue
                asked = now if asked is None else asked
                end = asked + seconds if end is None else end
        if end is not None and time.monotonic() >= end:
            if not warned:
                os.write(2, _TOLD.encode())
                os.write(1, b".")
                warned, end = True, time.monotonic() + _SECONDS_TO_EXIT
            else:
                os.kill(pid, signal.SIGKILL)
                return


if __name__ == "__main__":
    # A service manager tells all processes of a service to end; this one is needed until the other is gone.
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        _watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "1")
