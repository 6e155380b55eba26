"""What is closed and what is left alone: the lock of a process decides, and Prefect where no lock can be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Failed, Running, State

from prorec.tasks.local import paths, processes
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import (
    ATTEMPT_TAG,
    FLOW_RUN_TAG,
    FLOW_TAG,
    NOTE_TAG,
    SIGN_TAG,
    TrackedRun,
    client,
)
from prorec.tasks.upkeep.tidy import tidy


@flow(name="somewhere")
def somewhere() -> None:
    """A flow whose runs these tests put into states."""


def flow_run(*states: State[None]) -> FlowRun:
    """A flow run that went through these states."""
    with get_client(sync_client=True) as prefect:
        made = prefect.create_flow_run(somewhere, state=None)
        for state in states:
            prefect.set_flow_run_state(made.id, state, force=True)
        return prefect.read_flow_run(made.id)


def elsewhere(name: str, of: FlowRun, **tags: str) -> TrackedRun:
    """An open MLflow run of a process that cannot be seen from here."""
    known = {SIGN_TAG: uuid4().hex, FLOW_RUN_TAG: str(of.id), FLOW_TAG: str(of.flow_id), ATTEMPT_TAG: "1"}
    return TrackedRun.start(mlflow_runs.experiment_id("demo"), name, tags={**known, **tags})


def statuses() -> dict[str, str]:
    """The status of every run, by name."""
    return {str(run.info.run_name): run.info.status for run in mlflow_runs.search("")}


def test_dead_processes_lose_their_runs(prefect_api: str, tracked_folder: Path) -> None:
    experiment = mlflow_runs.experiment_id("demo")
    at_work = flow_run(Running())
    TrackedRun.start(experiment, "alive")
    (paths.locks() / "alive-gone").touch()
    tags = {SIGN_TAG: "gone", FLOW_RUN_TAG: str(at_work.id)}
    dead = TrackedRun.start(experiment, "dead", tags=tags)
    client().create_run(experiment, run_name="not ours")
    done = tidy()
    assert done.mlflow == [dead.id] and done.prefect == [str(at_work.id)]
    assert str(done) == "1 MLflow run and 1 flow run closed."
    assert statuses() == {"alive": "RUNNING", "dead": "KILLED", "not ours": "RUNNING"}
    assert "Its process died." in client().get_run(dead.id).data.tags[NOTE_TAG]
    with get_client(sync_client=True) as prefect:
        state = prefect.read_flow_run(at_work.id).state
    assert state is not None and state.is_crashed()
    assert str(tidy()) == "0 MLflow runs and 0 flow runs closed."


def test_who_is_known_to_be_gone_is_dead_wherever_it_was(prefect_api: str, tracked_folder: Path) -> None:
    lost, other = (elsewhere(name, flow_run(Running())) for name in ("lost", "other"))
    sign = client().get_run(lost.id).data.tags[SIGN_TAG]
    assert tidy(gone=[""]).mlflow == [] and tidy(gone=[sign]).mlflow == [lost.id]
    assert statuses() == {"lost": "KILLED", "other": "RUNNING"}
    other.finish()


def test_a_run_that_ends_meanwhile_stays_as_it_ended(prefect_api: str, tracked_folder: Path) -> None:
    ending = flow_run(Running())
    run = elsewhere("ending", ending)

    def end() -> None:
        run.finish()
        with get_client(sync_client=True) as prefect:
            prefect.set_flow_run_state(ending.id, Completed(), force=True)

    assert tidy(end).mlflow == []
    assert statuses() == {"ending": "FINISHED"}


def test_a_later_attempt_is_left_alone(prefect_api: str, tracked_folder: Path) -> None:
    again = flow_run(Running(), Failed(), Running())
    assert again.run_count == 2
    (paths.locks() / "alive-gone").parent.mkdir(exist_ok=True)
    (paths.locks() / "alive-gone").touch()
    elsewhere("first", again, **{SIGN_TAG: "gone"})
    elsewhere("second", again, **{ATTEMPT_TAG: "2"})
    assert tidy().prefect == []
    assert statuses() == {"first": "KILLED", "second": "RUNNING"}
    with get_client(sync_client=True) as prefect:
        state = prefect.read_flow_run(again.id).state
    assert state is not None and state.is_running()


def test_prefect_decides_where_no_lock_is_seen(prefect_api: str, tracked_folder: Path) -> None:
    elsewhere("runs", flow_run(Running()))
    elsewhere("ended", flow_run(Running(), Completed()))
    elsewhere("started again", flow_run(Running(), Failed(), Running()))
    deleted = flow_run(Running())
    with get_client(sync_client=True) as prefect:
        prefect.delete_flow_run(deleted.id)
    elsewhere("deleted", deleted)
    unknown = FlowRun(flow_id=uuid4(), id=UUID(int=7))
    elsewhere("of another Prefect", unknown)
    tidy()
    assert statuses() == {
        "runs": "RUNNING",
        "ended": "KILLED",
        "started again": "KILLED",
        "deleted": "KILLED",
        "of another Prefect": "RUNNING",
    }


def test_prefect_is_asked_only_where_needed(tracked_folder: Path) -> None:
    def never() -> None:
        raise AssertionError("there is nothing to ask")

    TrackedRun.start(mlflow_runs.experiment_id("demo"), "alive")
    assert tidy(never).mlflow == []


def test_an_empty_store_is_left_as_it_is(artifacts_folder: Path) -> None:
    assert str(tidy()) == "0 MLflow runs and 0 flow runs closed."
    assert not list(artifacts_folder.iterdir())


LIVING = "from prorec.tasks.local.processes import sign_of_life; print(sign_of_life(), flush=True); input()"


def test_a_process_lives_until_it_is_killed(artifacts_folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LIVING]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    sign = child.stdout.readline().strip()
    assert processes.lives(sign) is True
    child.kill()
    child.communicate()
    assert processes.lives(sign) is False


def test_signs_of_life(artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = processes.sign_of_life()
    assert own == processes.sign_of_life() and processes.lives(own) is True
    assert processes.lives("unheard of") is None and processes.lives("") is None and processes.lives("abc") is None
    child = os.fork()
    if not child:
        os._exit(processes.lives(own) is not True or processes.sign_of_life() == own)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    old = paths.locks() / "alive-old"
    old.touch()
    os.utime(old, (0, 0))
    (paths.locks() / "alive-young").touch()
    os.utime(paths.locks() / f"alive-{own}", (0, 0))
    processes.remove_old_signs()
    assert processes.lives("old") is None and processes.lives("young") is False and processes.lives(own) is True


def test_a_reused_number_is_another_process() -> None:
    own = processes.identity()
    assert not processes.is_dead(own)
    assert processes.is_dead({**own, "started": "earlier"})
    assert processes.is_dead({**own, "started": "earlier", "host": "its name before"})
    assert processes.is_dead({**own, "started": "earlier", "namespace": "before the last boot"})
    assert not processes.is_dead({**own, "started": "earlier", "host": "another", "namespace": "another"})
    assert not processes.is_dead({})
    child = subprocess.Popen(["sleep", "60"])
    identity = {**own, "pid": str(child.pid), "started": processes.started(child.pid) or ""}
    assert not processes.is_dead(identity)
    child.kill()
    child.wait()
    assert processes.is_dead(identity)
