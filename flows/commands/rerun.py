"""The command `prorec rerun`: an earlier run's experiment once more. Knows which run is meant and who runs it again."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from prorec.flows.terminal.screen import say
from prorec_core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from mlflow.entities import Run
    from prefect.client.schemas.objects import FlowRun

    from prorec_core.config import Experiment

RERUN_OF_TAG = "prorec.rerun_of"
RERUN_BY_TAG = "prorec.rerun_by"
_SECONDS_BETWEEN_LOOKS = 2
_MOST_NAMED = 5


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rerun)


def rerun(
    flow_run: Annotated[
        str | None,
        typer.Argument(
            metavar="[FLOW_RUN]",
            help="Id or name of a Prefect flow run, or id of its MLflow run. "
            "By default the newest that failed or was killed, else the newest.",
        ),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="STAGE", help="Make this stage anew all the same; may be given again."),
    ] = None,
) -> None:
    """Run an earlier run's experiment again: what was finished comes from the cache."""
    from prorec.flows.local.running import expect_stages, prepare_training, run_flow, show_result

    prepare_training()
    expect_stages("--stage", stage or ())
    earlier = _find(flow_run)
    say(f"Again: {earlier.info.run_name}, {earlier.info.status}, MLflow run {earlier.info.run_id}", error=True)
    known = _in_prefect(earlier)
    if _alive(earlier) or (known and known.state and not known.state.is_final()):
        raise UserError(
            "this run is still at work, or waits to be",
            place=str(earlier.info.run_name),
            cure="Wait for it, or stop it",
        )
    if known and known.deployment_id and not stage:
        _retry(known)
        return
    summary = run_flow(_experiment(earlier), frozenset(stage or ()), {RERUN_OF_TAG: earlier.info.run_id})
    _link(earlier, summary["mlflow"]["run_id"])
    show_result(summary)


def _find(which: str | None) -> Run:
    """The MLflow run of the whole run that is meant."""
    from prorec.tasks.local import paths
    from prorec.tasks.tracking import mlflow_runs

    settled: set[str] = set()
    """Runs, and flow runs in Prefect, that a newer one has repeated, or is repeating."""

    def is_meant(run: Run) -> bool:
        # Asked of all of them, the newest first.
        if which is not None:
            return which in _names(run)
        tags = run.data.tags
        if (
            RERUN_BY_TAG in tags
            or not settled.isdisjoint((run.info.run_id, tags.get(mlflow_runs.FLOW_RUN_TAG, "")))
            or not (run.info.status in {"FAILED", "KILLED"} or _alive(run) is False)
        ):
            settled.update(filter(None, (tags.get(RERUN_OF_TAG), tags.get(mlflow_runs.FLOW_RUN_TAG))))
            return False
        return True

    known: list[str] = []
    newest = None
    if not paths.nothing_tracked():
        condition = f"tags.`{mlflow_runs.EXPERIMENT_TAG}` != ''"
        for run in mlflow_runs.search(condition, order_by=["attributes.start_time DESC"]):
            if is_meant(run):
                return run
            newest = newest or run
            known += _names(run)[:1] if len(known) < _MOST_NAMED else []
    if which is not None:
        cure = did_you_mean(which, known) if known else "Run `prorec run demo` first"
        raise UserError("there is no such run", place=which, cure=cure)
    if newest is None:
        raise UserError("there is no run yet", cure="Run `prorec run demo` first")
    return newest


def _names(run: Run) -> list[str]:
    from prorec.tasks.tracking.mlflow_runs import FLOW_RUN_NAME_TAG, FLOW_RUN_TAG

    tags = run.data.tags
    return [name for name in (tags.get(FLOW_RUN_TAG), run.info.run_id, tags.get(FLOW_RUN_NAME_TAG)) if name]


def _alive(run: Run) -> bool | None:
    """Whether the process of a run that has not ended is at work on it; None where it has, or cannot be seen."""
    from prorec.tasks.local import processes
    from prorec.tasks.tracking.mlflow_runs import SIGN_TAG

    return processes.lives(run.data.tags.get(SIGN_TAG, "")) if run.info.status == "RUNNING" else None


def _experiment(run: Run) -> Experiment:
    """The experiment that a run was given, with every value, and its files as named from where that was started.

    One of an earlier version means what it meant then.
    """
    from prorec.flows.configuration.experiments import with_files_in
    from prorec.tasks.tracking.mlflow_runs import EXPERIMENT_FILE, FOLDER_TAG, read_text
    from prorec_core import versions
    from prorec_core.config import Experiment

    place = f"{run.info.run_name}: {EXPERIMENT_FILE}"
    record = versions.parsed(read_text(run.info.run_id, EXPERIMENT_FILE), place)
    experiment = versions.whole(Experiment, versions.up_to_date(record, place), place)
    return with_files_in(run.data.tags.get(FOLDER_TAG, ""), experiment)


def _in_prefect(run: Run) -> FlowRun | None:
    """The flow run of a run, where the Prefect server in use knows it."""
    if not os.environ.get("PREFECT_API_URL"):
        return None
    from prorec.flows.local.embedded import start_prefect

    start_prefect()()
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from prorec.tasks.tracking.mlflow_runs import FLOW_RUN_TAG
    from prorec.tasks.upkeep.tidy import tidy

    if run.info.status == "RUNNING":
        tidy()
    with get_client(sync_client=True) as client:
        try:
            return client.read_flow_run(UUID(run.data.tags.get(FLOW_RUN_TAG, "")))
        except (ObjectNotFound, ValueError):
            return None


def _retry(flow_run: FlowRun) -> None:
    """Have a worker run a flow run again, wait for it and show the result."""
    from prefect.client.orchestration import get_client
    from prefect.states import Scheduled

    from prorec.flows.local.running import show_result
    from prorec.tasks.tracking import mlflow_runs

    state = None
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, Scheduled(message="To be run again: prorec rerun"), force=True)
        say(f"A worker runs it again: prefect flow-run inspect {flow_run.id}", error=True)
        while state is None or not state.is_final():
            time.sleep(_SECONDS_BETWEEN_LOOKS if state else 0)
            before, state = state, client.read_flow_run(flow_run.id).state
            if state and (before is None or state.name != before.name):
                say(f"flow run: {state.name}", error=True)
    if not state.is_completed():
        raise UserError(state.message or str(state.name), place=flow_run.name)
    condition = f"tags.`{mlflow_runs.EXPERIMENT_TAG}` != '' and tags.`{mlflow_runs.FLOW_RUN_TAG}` = '{flow_run.id}'"
    newest = next(mlflow_runs.search(condition, order_by=["attributes.start_time DESC"]))
    show_result(json.loads(mlflow_runs.read_text(newest.info.run_id, mlflow_runs.SUMMARY_FILE)))


def _link(earlier: Run, run_id: str) -> None:
    """Say in MLflow by which run, which names it, another was repeated."""
    from prorec.tasks.tracking.mlflow_runs import client
    from prorec.tasks.tracking.retries import retrying

    retrying(client().set_tag, earlier.info.run_id, RERUN_BY_TAG, run_id)
