"""The Prefect run that the present code runs in: its ids, its attempt, its pages, and how it fails.

Knows Prefect, and which tags say this in MLflow; knows nothing of stages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import quote
from uuid import UUID

import prefect.runtime
from prefect import Flow, Task, get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.flow_engine import run_flow
from prefect.logging.handlers import APILogWorker
from prefect.settings import get_current_settings
from prefect.states import Failed, Pending
from prefect.transactions import get_transaction
from prefect.utilities.asyncutils import run_coro_as_sync

from prorec.tasks.execution.events import StageStoppedError
from prorec.tasks.local import paths
from prorec.tasks.local.machine_errors import explained
from prorec.tasks.tracking.mlflow_runs import ATTEMPT_TAG, FLOW_RUN_NAME_TAG, FLOW_RUN_TAG, FLOW_TAG, TASK_RUN_TAG
from prorec_core.errors import UserError, one_line

T = TypeVar("T")

_SECONDS_TO_SEND = 5.0
_TOLD = "_prorec_told"
"""Set on an error whose traceback is in the log."""


@dataclass(frozen=True)
class PrefectRun:
    """A flow run, and a task run of it or none.

    Attributes:
        flow_run: id of the flow run.
        name: its name.
        flow: id of its flow, which no two Prefect databases share.
        attempt: 1, or how often it was started.
        task_run: id of the task run, or nothing.
        deployed: whether a worker started it.
        pages: address of Prefect's pages, or None where nothing shows any.
    """

    flow_run: str
    name: str
    flow: str
    attempt: int
    task_run: str
    deployed: bool
    pages: str | None

    @classmethod
    def here(cls) -> PrefectRun:
        """The run that the caller is in."""
        context = FlowRunContext.get()
        flow_run = context.flow_run if context else None
        task_run = str(prefect.runtime.task_run.id or "")
        embedded = bool(os.environ.get(paths.EMBEDDED_VARIABLE))
        return cls(
            flow_run=str(prefect.runtime.flow_run.id or ""),
            name=str(prefect.runtime.flow_run.name or ""),
            flow=str(flow_run.flow_id) if flow_run else "",
            attempt=int(prefect.runtime.flow_run.run_count or 1),
            task_run=task_run,
            deployed=bool(flow_run and flow_run.deployment_id),
            pages=None if embedded else _pages(),
        )

    @property
    def tags(self) -> Mapping[str, str]:
        """What an MLflow run says of it."""
        return {
            FLOW_RUN_TAG: self.flow_run,
            FLOW_RUN_NAME_TAG: self.name,
            FLOW_TAG: self.flow,
            ATTEMPT_TAG: str(self.attempt),
            **({TASK_RUN_TAG: self.task_run} if self.task_run else {}),
        }

    @property
    def link(self) -> str:
        """Where to see it, as Markdown."""
        runs = [("flow run", "flow-run", self.flow_run), ("task run", "task-run", self.task_run)]
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        if self.pages:
            shown = [f"[{text}]({self.pages}/runs/{kind}/{quote(key)})" for text, kind, key in runs if key]
            return f"Prefect: {', '.join(shown)}{attempt}"
        shown = [f"{text} `{key}`" for text, _, key in runs if key]
        how = f"`PREFECT_HOME={paths.prefect_home()} prefect server start` shows it"
        return f"Prefect: {', '.join(shown)}{attempt}; no server is up, {how}"

    def show_mlflow(self, stage: str, run_id: str, page: str | None) -> None:
        """Say in the log which MLflow run belongs to a stage's task run, and link to its page where there is one."""
        get_run_logger().info("MLflow run %s%s", run_id, f": {page}" if page else "")
        if page and self.pages:
            create_link_artifact(
                key=f"mlflow-{stage.replace('_', '-')}",
                link=page,
                link_text=f"{stage} in MLflow",
                description=f"The MLflow run of the stage {stage}: metrics, files, what it read and wrote.",
            )

    @property
    def again(self) -> str:
        """How to run it again, as Markdown."""
        here = f"`prorec rerun {self.flow_run}`"
        return f"`prefect flow-run retry {self.flow_run}` or {here}" if self.deployed else here


def environment() -> dict[str, str]:
    """What has another process use the Prefect server in use here, by its password too."""
    found = get_current_settings()
    key = found.api.auth_string
    return {
        **({"PREFECT_API_URL": found.api.url} if found.api.url else {}),
        **({"PREFECT_API_AUTH_STRING": key.get_secret_value()} if key else {}),
        "PREFECT_HOME": str(found.home),
    }


def announce(flow: Flow[..., Any]) -> str:
    """Tell Prefect that a flow is to run below the present one, in another process; returns what `run_below` takes."""
    task: Task[..., Any] = Task(name=flow.name, fn=flow.fn, version=flow.version)
    # As Prefect itself marks the task run that stands for a flow run below.
    task._is_subflow_tracking_task = True  # type: ignore[attr-defined]
    made = run_coro_as_sync(task.create_run(flow_run_context=FlowRunContext.get(), parameters={}))
    assert made is not None
    return str(made.id)


def run_below(flow: Flow[..., T], parameters: dict[str, Any], place: str) -> T:
    """Run a flow below that of another process, which has announced it; by itself where that has another server."""
    above = None if os.environ.get(paths.APART_VARIABLE) else UUID(place)
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(
            flow,
            parameters=flow.serialize_parameters(parameters),
            state=Pending(),
            parent_task_run_id=above,
        )
    return cast("T", run_flow(flow, flow_run=run, parameters=parameters))


def send_all() -> None:
    """Have Prefect's server know all that happened in this process, logs and states of tasks, as far as it answers."""
    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_SECONDS_TO_SEND)


def _pages() -> str | None:
    """Where Prefect's pages are. Of a server's own it is the newer ones: who opens a link into the older ones without
    being signed in is shown that nothing is there, and not where to sign in.
    """
    settings = get_current_settings()
    return f"{settings.ui_url}/v2" if settings.ui_url and not settings.connected_to_cloud else settings.ui_url


def failed(error: Exception, reason: str = "") -> Any:
    """What a task or a flow returns instead of raising: a failure whose message is one line, `reason` or the error.

    Prefect raises the error to whoever asks for the result. A user's mistake, what the machine refuses, or a stage that
    was stopped leaves no traceback in the log; any other error leaves one, where it is met first.
    """
    if transaction := get_transaction():
        # Prefect would keep what a task returns as the result that its cache key stands for.
        transaction.write_on_commit = False
    error = explained(error) or error
    if not isinstance(error, UserError | StageStoppedError) and not getattr(error, _TOLD, False):
        get_run_logger().error("Failed", exc_info=error)
        setattr(error, _TOLD, True)
    return Failed(message=reason or one_line(error), data=error)
