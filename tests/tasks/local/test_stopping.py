"""Processes that are asked to end in the worst of moments: each is gone in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prorec.tasks.local.stopping import SECONDS_TO_CLOSE, STATUS, end_when_asked, stops_kept

SECONDS = 0.8
"""What these processes are given to close what is open."""

PROLOGUE = """
import hashlib, os, signal, sys, time
from prorec.flows.local.embedded import _stop
from prorec.tasks.local.stopping import end_when_asked

signal.signal(signal.SIGTERM, _stop)
end_when_asked(interruptions=True, seconds=float(sys.argv[1]))

def ready():
    print("ready", flush=True)
"""

SLOW = """
class Slow:
    def __del__(self):
        ready()
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            pass
"""

WORK = {
    "quick": "ready()\ntime.sleep(60)",
    "swallowed in __del__": f"""{SLOW}
Slow()
while True:
    time.sleep(0.01)
""",
    "C code": "ready()\nhashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
    "C code that lets no Python run": "ready()\nsum(range(10**12))",
    "a library's own handler": """
def ignore(*_):
    pass
signal.signal(signal.SIGTERM, ignore)
ready()
while True:
    time.sleep(0.01)
""",
    "closing that takes for ever": """
ready()
try:
    time.sleep(60)
finally:
    while True:
        time.sleep(1)
""",
    "after Prefect's handler came and went": f"""{SLOW}
from prefect.utilities.engine import capture_sigterm
with capture_sigterm():
    Slow()
    while True:
        time.sleep(0.01)
""",
}
BY_ITSELF = {"quick", "swallowed in __del__", "after Prefect's handler came and went"}
"""Those that end as they would have by an interruption, with all that this closes."""


def _start(tmp_path: Path, work: str, seconds: float = SECONDS) -> subprocess.Popen[str]:
    script = tmp_path / "work.py"
    script.write_text(PROLOGUE + work)
    process = subprocess.Popen(
        [sys.executable, str(script), str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    # It says so before it begins.
    time.sleep(0.1)
    return process


def _end(process: subprocess.Popen[str], at_most: float) -> tuple[int, float, str]:
    """Wait for its end: status, seconds, and what it said."""
    begun = time.monotonic()
    try:
        _, said = process.communicate(timeout=at_most)
    finally:
        process.kill()
        process.wait()
    return process.returncode, time.monotonic() - begun, said


@pytest.mark.parametrize("name", WORK)
def test_a_process_that_was_asked_to_end_is_gone_in_time(tmp_path: Path, name: str) -> None:
    process = _start(tmp_path, WORK[name])
    process.send_signal(signal.SIGTERM)
    status, seconds, said = _end(process, SECONDS + 10)
    if name in BY_ITSELF:
        # As Python ends after an interruption that nobody caught.
        assert status == -signal.SIGINT and "KeyboardInterrupt" in said, said
    else:
        assert status == (-signal.SIGKILL if name == "C code that lets no Python run" else STATUS), said
        assert said.strip().splitlines()[-1].startswith("Ended before all was closed.")
        assert seconds > SECONDS / 2


def test_ten_seconds_are_promised() -> None:
    assert SECONDS_TO_CLOSE + 1 < 10


def test_interruptions_that_are_read_late_are_counted(tmp_path: Path) -> None:
    """As where the machine is so busy that the process beside begins after the keys were pressed."""
    process = _start(tmp_path, WORK["C code"], seconds=60)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert _end(process, 10)[0] == STATUS


def test_a_second_interruption_ends_it_at_once(tmp_path: Path) -> None:
    process = _start(tmp_path, WORK["C code"], seconds=60)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    # One key may come twice, through the terminal and through a program that passes it on.
    process.send_signal(signal.SIGINT)
    time.sleep(0.7)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert _end(process, 10)[0] == STATUS


def test_a_child_s_signals_are_not_its_parent_s(tmp_path: Path) -> None:
    work = """
child = os.fork()
if not child:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
ready()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
time.sleep(float(sys.argv[1]) + 1.5)
os._exit(0)
"""
    assert _end(_start(tmp_path, work), 20)[0] == 0


def test_a_stop_that_became_an_error_on_its_way_is_one_all_the_same() -> None:
    class TerminationSignal(BaseException):
        signal = 15

    def swallowed(stop: BaseException) -> None:
        try:
            raise stop
        except BaseException:
            raise ValueError("Task run is not set") from None

    for stop in (TerminationSignal(), KeyboardInterrupt()):
        with pytest.raises(type(stop)), stops_kept():
            swallowed(stop)
    with pytest.raises(ValueError, match="not set"), stops_kept():
        swallowed(GeneratorExit())


def test_elsewhere_than_in_the_main_thread_nothing_changes(tmp_path: Path) -> None:
    import threading

    before = sys.unraisablehook
    thread = threading.Thread(target=end_when_asked)
    thread.start()
    thread.join()
    assert sys.unraisablehook is before
