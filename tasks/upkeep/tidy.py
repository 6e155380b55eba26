"""Closing what died: runs in MLflow and in Prefect that no process works on any more.

Knows who is asked whether a run is still alive: the lock that its process holds where that can be seen from here, and
Prefect where it cannot (another machine, a container that is gone).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prorec.tasks.local import paths, processes
from prorec.tasks.tracking import leases, mlflow_runs
from prorec.tasks.tracking.mlflow_runs import ATTEMPT_TAG, FLOW_RUN_TAG, FLOW_TAG, PROCESS_TAG, SIGN_TAG, TASK_RUN_TAG
from prorec.tasks.tracking.retries import retrying
from prorec_core.errors import one_line

if TYPE_CHECKING:
    from mlflow.entities import Run
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State


_DIED = "Its process died."


@dataclass
class Tidied:
    """What was closed: ids of MLflow runs, and of Prefect's flow runs."""

    mlflow: list[str] = field(default_factory=list)
    prefect: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{_count(len(self.mlflow), 'MLflow run')} and {_count(len(self.prefect), 'flow run')} closed."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def tidy(ask_prefect: Callable[[], None] = lambda: None, gone: Collection[str] = ()) -> Tidied:
    """Close as KILLED the MLflow runs, and as Crashed the flow runs, of processes that died; never one that lives.

    Args:
        ask_prefect: called before Prefect is asked for the first time, if it is asked at all.
        gone: signs of life of processes that the caller knows to be gone, wherever they were.
    """
    done = Tidied()
    if paths.nothing_tracked():
        return done
    orphans: list[tuple[Run, bool]] = []
    for run in mlflow_runs.search("attributes.status = 'RUNNING'"):
        if f"{PROCESS_TAG}host" not in run.data.tags:
            continue
        sign = run.data.tags.get(SIGN_TAG, "")
        alive = False if sign and sign in gone else processes.lives(sign)
        if not alive:
            orphans.append((run, alive is False))
    for run, dead in orphans:
        if dead and not run.data.tags.get(FLOW_RUN_TAG):
            _close(run, _DIED, done)
    in_prefect = [(run, dead) for run, dead in orphans if run.data.tags.get(FLOW_RUN_TAG)]
    if in_prefect:
        ask_prefect()
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            for run, dead in in_prefect:
                if over := _DIED if dead else _over(client, run):
                    # In this order: what is closed in MLflow is not looked at again.
                    _crash(client, run, done)
                    _close(run, over, done)
    leases.drop_dead()
    processes.remove_old_signs()
    return done


def tidy_first(gone: Collection[str] = ()) -> str:
    """Tidy before other work, which must not fail because of it; returns what there is to say."""
    try:
        return str(tidy(gone=gone))
    except Exception as error:
        return f"cannot be closed now ({one_line(error)})"


def _attempt(run: Run) -> int:
    return int(run.data.tags.get(ATTEMPT_TAG, "1"))


def _close(run: Run, reason: str, done: Tidied) -> None:
    # It may have ended by itself since it was found.
    if retrying(mlflow_runs.client().get_run, run.info.run_id).info.status != "RUNNING":
        return
    process = {name: run.data.tags.get(PROCESS_TAG + name, "?") for name in ("pid", "host")}
    mlflow_runs.close_killed(run, f"{reason} (Process {process['pid']} on {process['host']})")
    done.mlflow.append(run.info.run_id)


def _read(client: SyncPrefectClient, flow_run: str) -> FlowRun | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_flow_run(UUID(flow_run))
    except (ObjectNotFound, ValueError):
        return None


def _crash(client: SyncPrefectClient, run: Run, done: Tidied) -> None:
    """Have Prefect know that a run's flow run, and its task run, are at work no more."""
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    state: State[Any] = Crashed(message=_DIED)
    found = _read(client, run.data.tags[FLOW_RUN_TAG])
    # A later attempt has a process of its own.
    if found and found.state and found.state.is_running() and found.run_count <= _attempt(run):
        client.set_flow_run_state(found.id, state, force=True)
        done.prefect.append(str(found.id))
    # Prefect itself leaves the task runs of a flow run that crashed as they were.
    with contextlib.suppress(ObjectNotFound, ValueError):
        task_run = client.read_task_run(UUID(run.data.tags.get(TASK_RUN_TAG, "")))
        if task_run.state and task_run.state.is_running():
            client.set_task_run_state(task_run.id, state, force=True)


def _over(client: SyncPrefectClient, run: Run) -> str | None:
    """Why nobody can be at work on a run any more, as far as Prefect knows; None if somebody may be."""
    found = _read(client, run.data.tags[FLOW_RUN_TAG])
    if found is None:
        # Only the database that the run was in can know that it was deleted.
        return "Its flow run was deleted." if _knows_flow(client, run.data.tags.get(FLOW_TAG, "")) else None
    if found.state and found.state.is_final():
        return f"Its flow run ended: {found.state.name}."
    return "Its flow run was started again." if found.run_count > _attempt(run) else None


def _knows_flow(client: SyncPrefectClient, flow: str) -> bool:
    from prefect.client.schemas.filters import FlowFilter, FlowFilterId

    with contextlib.suppress(ValueError):
        return bool(client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=[UUID(flow)]))))
    return False
