"""The supervisor with programs that only sleep: what it starts, starts again, ends, and leaves alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prorec.flows.stack import children, state, supervisor
from prorec_core.errors import UserError

SLEEPER = [sys.executable, "-c", "import time; time.sleep(100)"]
SUPERVISOR = """
import os, signal, sys
from prorec.flows.stack import supervisor, state
from prorec.flows.stack.children import Program
from prorec.tasks.local import processes

def program(name, code, **more):
    return Program(name, [sys.executable, "-c", code], dict(os.environ), more.pop("answers", lambda _: True), **more)

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(100)"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(100)'])"
heard = lambda _: "deaf" in supervisor.log_file("deaf").read_text()
signal.signal(signal.SIGINT, signal.SIG_IGN)
with supervisor.alone() as first:
    if not first:
        sys.exit("not alone")
    supervisor.log_to(supervisor.log_file("stack"))
    stack = state.StackState("mark", processes.identity(), "http://127.0.0.1:1", "http://127.0.0.1:2")
    programs = [
        program("deaf", DEAF, answers=heard, seconds_to_stop=0.5),
        program("once", "print('did it')", once=True),
        program("parent", PARENT, needs=("deaf",)),
    ]
    chore = program("chore", "print('swept')", once=True)
    if sys.argv[1:] == ["full"]:
        chore, write = Program("chore", ["/nowhere"], {}, lambda _: True), state.StackState.write
        full = state.folder() / "full"

        def limited(self):
            if full.exists():
                raise OSError(28, "No space left on device")
            write(self)

        state.StackState.write = limited
    elif len(sys.argv) > 1:
        programs = [program("broken", "raise SystemExit('it is broken')")]
    if len(sys.argv) > 2:
        supervisor._SECONDS_TO_START = float(sys.argv[2])
    supervisor.Supervisor(stack, programs, [chore]).run()
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def begin(artifacts_folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts supervisors; whatever is left of them is ended after the test."""
    begun = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()
    supervisor.clear_left_over(state.read())


def ready() -> state.StackState:
    until(lambda: (found := state.running()) is not None and found.ready)
    found = state.read()
    assert found is not None
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows the environment of processes")
def test_all_that_was_started_is_ended_and_nothing_else(begin: Callable[..., subprocess.Popen[str]]) -> None:
    bystander = subprocess.Popen(SLEEPER, start_new_session=True)
    process = begin()
    stack = ready()
    until(lambda: len(children.marked("mark")) == 3)  # the parent's child, too
    assert {name: child.status for name, child in stack.children.items()} == {
        "deaf": "running",
        "once": "done",
        "parent": "running",
    }
    until(lambda: children.last_line(supervisor.log_file("chore")) == "swept")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert not children.marked("mark") and state.read() is None
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows the environment of processes")
def test_what_dies_is_started_again_and_said(begin: Callable[..., subprocess.Popen[str]]) -> None:
    process = begin()
    first = ready().children["parent"]
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: (found := state.read()) is not None and found.children["parent"].restarts == 1)
    until(lambda: (found := state.read()) is not None and found.children["parent"].status == "running")
    again = ready().children["parent"]
    until(lambda: len(children.marked("mark")) == 3)  # what it had started is gone
    assert again.pid != first.pid and again.alive() and not first.alive()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert "parent was killed by SIGKILL; starting it again in 1 s" in out
    assert "parent was killed by SIGKILL" in supervisor.log_file("stack").read_text()


def test_nothing_ends_for_want_of_room_or_of_a_program(begin: Callable[..., subprocess.Popen[str]]) -> None:
    process, log = begin("full"), supervisor.log_file("stack")
    stack = ready()
    full = state.folder() / "full"
    full.touch()
    pid = stack.children["parent"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: "what runs cannot be written down (No space left on device)" in log.read_text())
    full.unlink()
    until(lambda: (found := state.read()) is not None and found.children["parent"].restarts == 1)
    until(lambda: (found := state.read()) is not None and found.children["parent"].status == "running")
    again = ready().children
    assert again["parent"].pid != pid
    assert again["deaf"].pid == stack.children["deaf"].pid, "the others are left alone"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "chore cannot be started (No such file or directory)" in out
    assert out.count("cannot be written") == 1 and "Traceback" not in out


def test_a_killed_supervisor_leaves_nothing_for_ever(begin: Callable[..., subprocess.Popen[str]]) -> None:
    process = begin()
    stack = ready()
    assert begin().wait(timeout=60) != 0  # there is one already
    process.kill()
    process.wait()
    left = state.read()
    assert left is not None and not left.running() and state.running() is None
    assert stack.children["deaf"].alive() and stack.children["parent"].alive()

    # Numbers of other processes, in a state from before a reboot, mean nothing.
    other = subprocess.Popen(SLEEPER, start_new_session=True)
    left.children["stranger"] = state.ChildState(pid=other.pid, started="before the last boot")
    # The chore may be at work as well.
    assert set(supervisor.clear_left_over(left, 0.5)) - {"unfinished work"} == {"deaf", "parent"}
    assert not stack.children["deaf"].alive() and not stack.children["parent"].alive()
    assert other.poll() is None and state.read() is None
    other.kill()
    other.wait()


def test_a_state_from_another_machine_ends_nothing(artifacts_folder: Path) -> None:
    other = subprocess.Popen(SLEEPER, start_new_session=True)
    child = state.ChildState(pid=other.pid, started=state.processes.started(other.pid) or "")
    stack = state.StackState("mark", {"host": "another", "pid": "1"}, "", "", children={"prefect": child})
    assert supervisor.clear_left_over(stack) == [] and other.poll() is None
    other.kill()
    other.wait()


def test_what_cannot_start_is_told(begin: Callable[..., subprocess.Popen[str]]) -> None:
    process = begin("broken")
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "UserError: broken ended with status 1 (it is broken). See " in out


def test_what_is_being_started_again_is_late_too(begin: Callable[..., subprocess.Popen[str]]) -> None:
    out, _ = begin("broken", "0.9").communicate(timeout=60)
    assert "UserError: no answer from broken for 1 seconds. See " in out


def test_a_taken_port_is_told() -> None:
    with socket.socket() as listener:
        listener.bind((children.HOST, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"--prefect-port: port {taken} is taken by another program"):
            children.free_port(taken, 1, "--prefect-port")
        assert children.free_port(None, taken, "--prefect-port") not in {taken, 0}
    assert children.free_port(taken, 1, "--prefect-port") == taken


def test_a_long_log_is_cut_under_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_LONGEST_LOG", 10)
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"0123456789")
        children.bound(log)
        assert log.read_bytes() == b"0123456789"
        writer.write(b"\nlast\n")
        children.bound(log)
        writer.write(b"new\n")
    assert (tmp_path / "x.old.log").read_bytes() == b"0123456789\nlast\n" and log.read_bytes() == b"new\n"
    assert children.last_line(tmp_path / "x.old.log") == "last" and children.last_line(tmp_path / "none") == ""
