"""Jobs side by side: real processes that do them, fail, ask, die, and end with whoever gave them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from prorec.flows.local import crew
from prorec.tasks.execution.events import Notice, listening
from prorec.tasks.local.piped import Ended
from prorec.tasks.local.stopping import SECONDS_TO_CLOSE
from prorec_core.errors import MachineError
from prorec_core.threads import cores, run_on, shares

MEMBER = """
import os, sys, time
from prorec.flows.local import member
from prorec.tasks.execution.events import StageStarted, emit
from prorec_core.errors import MachineError, UserError

def job(order, ask):
    what = order["what"]
    emit(StageStarted("align"))
    if what == "ask":
        return ask({"epoch": 1}) + 1
    if what == "cores":
        import torch
        return [sorted(os.sched_getaffinity(0)), torch.get_num_threads()]
    if what == "fail":
        raise UserError("no such value", place="align.alpha")
    if what == "die":
        os.kill(os.getpid(), 9)
    if what == "full":
        raise MachineError("no room")
    if what == "sleep":
        time.sleep(600)
    return what

sys.modules["jobs"] = sys.modules[__name__]
member.JOBS = {"job": "jobs:job"}
member.main()
"""
CREW = """
import json, sys
from prorec.flows.local import crew
from prorec.tasks.execution.events import Beside, listening

crew.PROGRAM = (sys.argv[1],)
todo, happened = sys.argv[3:], []

def following():
    if not todo:
        return None
    return crew.Job(f"job {len(todo)}", {"do": "job", "what": todo.pop(0)}, lambda asked: asked["epoch"])

def ended(job, outcome):
    happened.append([job.order["what"], outcome.result, outcome.stage, outcome.reason])

def hear(event):
    assert isinstance(event, Beside) and event.name.startswith("job ") and event.event.stage == "align"
    print("began", flush=True)

count = int(sys.argv[2])
with listening(hear), crew.Crew(count, crew.here(count)) as members:
    try:
        members.work(following, ended)
    except Exception as error:
        happened.append([type(error).__name__, str(error)])
print(json.dumps(happened))
"""


def _start(tmp_path: Path, count: int, *jobs: str) -> subprocess.Popen[str]:
    for name, text in {"member.py": MEMBER, "crew.py": CREW}.items():
        (tmp_path / name).write_text(text)
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "crew.py"), str(tmp_path / "member.py"), str(count), *jobs],
        env={**os.environ, "PROREC_ARTIFACTS": str(tmp_path / "artifacts"), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_each_job_has_its_own_end_and_the_others_go_on(tmp_path: Path) -> None:
    process = _start(tmp_path, 1, "ask", "fail", "die", "cores", "full", "never")
    out, _ = process.communicate(timeout=200)
    asked, failed, died, ran, fatal = json.loads(out.splitlines()[-1])
    assert asked == ["ask", 2, "", ""]
    assert failed == ["fail", None, "align", "align.alpha: no such value."]
    assert died[:3] == ["die", None, "align"] and died[3].startswith("its process died (signal SIGKILL; ")
    assert ran[1] == [cores(), int(os.environ["OMP_NUM_THREADS"])], "it has another process, and all cores of one"
    assert fatal == ["MachineError", "no room."], "what all would meet ends the whole"


def _members(pid: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if b"member.py" in (place / "cmdline").read_bytes() and f"PPid:\t{pid}\n" in (place / "status").read_text():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def test_nobody_outlives_whoever_gave_the_jobs(tmp_path: Path) -> None:
    process = _start(tmp_path, 2, "sleep", "sleep")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["began\n"] * 2
    members = _members(process.pid)
    assert len(members) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while any(_lives(pid) for pid in members) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_lives(pid) for pid in members)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class Elsewhere:
    """Stands for a process on a machine of a cluster; `say` is what comes of it, None its end."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self._said: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self.ended: list[float] = []

    def say(self, message: dict[str, Any] | None) -> None:
        self._said.put(message)

    def send(self, line: str) -> None:
        self.heard.append(json.loads(line))
        if self.heard[-1].get("do") == "job":
            self.say({"result": self.heard[-1]["what"]})

    def lines(self) -> Iterator[str]:
        while (message := self._said.get()) is not None:
            yield json.dumps(message)

    def stop(self) -> None:
        self.say(None)

    def end(self, seconds: float) -> Ended:
        self.ended.append(seconds)
        return Ended(None, "the node is gone")


def _jobs(*names: str) -> Callable[[], crew.Job | None]:
    left = [crew.Job(name, {"do": "job", "what": name}) for name in names]
    return lambda: left.pop(0) if left else None


def test_a_job_is_done_by_whoever_has_room_first() -> None:
    placed, waits = Elsewhere(), Elsewhere()
    placed.say({"ready": "s"})
    done: list[Any] = []
    with crew.Crew(2, lambda slot: [waits, placed][slot], "no room") as members:
        members.work(_jobs("a", "b", "c"), lambda job, outcome: done.append((job.name, outcome.result)))
    assert sorted(done) == [("a", "a"), ("b", "b"), ("c", "c")], "none waits for one that never begins"
    assert placed.heard[-1] == {"do": "end"} and placed.ended[0] > 0
    assert waits.heard == [] and waits.ended == [0.0]


def test_where_there_is_no_room_for_long_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_SECONDS_TO_BEGIN", 0.0)
    only, told = Elsewhere(), list[str]()

    def hear(event: object) -> None:
        assert isinstance(event, Notice)
        told.append(event.text)
        only.say({"ready": "s"})

    with listening(hear), crew.Crew(1, lambda _: only, "no room") as members:
        members.work(_jobs("a"), lambda job, outcome: None)
    assert told == ["no room"]


def test_a_machine_that_is_lost_before_a_process_begins_is_not_the_last() -> None:
    lost, then, started = Elsewhere(), Elsewhere(), list[Elsewhere]()
    lost.say(None)
    then.say({"ready": "s"})

    def start(_: int) -> Elsewhere:
        started.append(then if started else lost)
        return started[-1]

    done: list[str] = []
    with crew.Crew(1, start) as members:
        members.work(_jobs("a"), lambda job, outcome: done.append(outcome.result))
    assert done == ["a"] and started == [lost, then]

    def always(_: int) -> Elsewhere:
        found = Elsewhere()
        found.say(None)
        return found

    with crew.Crew(1, always) as members, pytest.raises(MachineError, match=r"could not start .* the node is gone"):
        members.work(_jobs("a"), lambda job, outcome: None)


def test_the_end_of_a_machine_is_the_end_of_its_job_and_of_no_other() -> None:
    first, then = Elsewhere(), Elsewhere()
    for each in (first, then):
        each.say({"ready": f"sign {each is then}"})
    first.send = lambda line: first.say(None)  # type: ignore[method-assign]
    programs, done = [first, then], list[crew.Outcome]()
    with crew.Crew(1, lambda _: programs.pop(0)) as members:
        members.work(_jobs("a", "b"), lambda job, outcome: done.append(outcome))
    assert done[0].died and done[0].sign == "sign False"
    assert done[0].reason == "its process died (its machine, or Ray's process there, is gone)"
    assert done[1].result == "b"


def test_shares_are_all_cores_and_none_is_empty() -> None:
    own = cores()
    for count in range(1, len(own) + 3):
        cut = shares(count)
        assert len(cut) == count and all(cut)
        if count <= len(own):
            assert sorted(core for share in cut for core in share) == own


def test_all_threads_move() -> None:
    before = cores()
    try:
        run_on(before[:1])
        assert cores() == before[:1]
    finally:
        run_on(before)
    assert cores() == before


def test_who_waits_for_others_has_time_left_to_close_its_own() -> None:
    assert crew._SECONDS_TO_END <= SECONDS_TO_CLOSE - 2
