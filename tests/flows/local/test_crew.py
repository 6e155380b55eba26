"""Jobs side by side: real processes that do them, fail, ask, die, and end with whoever gave them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prorec.flows.local.crew import expect_shares
from prorec_core.config_compute import ComputeConfig
from prorec_core.errors import UserError
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

with listening(hear), crew.Crew(int(sys.argv[2])) as members:
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


def test_several_do_not_start_a_cluster_each() -> None:
    on_ray = ComputeConfig.model_validate({"engine": "ray"})
    with pytest.raises(UserError, match=r"--parallel: each of them would start a Ray cluster .* Set compute\.address"):
        expect_shares(2, on_ray)
    expect_shares(1, on_ray)
    expect_shares(2, on_ray.model_copy(update={"address": "auto"}))
    expect_shares(2, ComputeConfig())


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
