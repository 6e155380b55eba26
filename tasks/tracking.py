"""Runs in MLflow: a parent a flow run, a child a stage; parameters, data sets, artifacts, links to Prefect.

Knows MLflow's client and nothing of the method. Imports MLflow when first used: that takes seconds.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec_core.errors import UserError
from tasks import places, processes
from tasks.datasets import DataSet
from tasks.metrics import MetricSender
from tasks.patience import patiently

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ARTIFACT_FOLDER = "artifact"
"""Where in a run's artifacts the described files of a stage are."""

PAGE_VARIABLE = "PROREC_MLFLOW_PAGE"
_PROCESS_TAG = "prorec.process."
_LONGEST_VALUE = 6000
_log = logging.getLogger(__name__)


@cache
def _client(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if places.tracks_over_http():
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    # Two processes that make the tables at the same time are in each other's way.
    with places.lock("mlflow-database"):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def client() -> MlflowClient:
    """The client of the tracking store in use."""
    return _client(places.tracking_uri())


def experiment_name(name: str) -> str:
    """The MLflow experiment, and the registered model, of an experiment of this project."""
    return f"prorec-{name}"


def experiment_id(name: str) -> str:
    """The MLflow experiment of an experiment of this project, made where it does not exist.

    Raises:
        UserError: it was deleted in MLflow, which keeps its name.
    """
    title = experiment_name(name)
    found = patiently(client().get_experiment_by_name, title)
    if found is None:
        location = None if places.tracks_over_http() else str(places.store())
        return str(patiently(client().create_experiment, title, artifact_location=location))
    if found.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment '{title}' was deleted",
            cure=f"Restore it (mlflow experiments restore -x {found.experiment_id}) or choose another name",
        )
    return str(found.experiment_id)


def page(experiment: str, run_id: str) -> str | None:
    """The address of a run's page, where a server shows one."""
    base = os.environ.get(PAGE_VARIABLE) or (places.tracking_uri() if places.tracks_over_http() else None)
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}" if base else None


def close_dead_runs() -> list[Run]:
    """Close as KILLED the runs of this machine's processes that died without closing them."""
    experiments = [each.experiment_id for each in patiently(client().search_experiments)]
    condition = f"attributes.status = 'RUNNING' and tags.`{_PROCESS_TAG}host` = '{processes.host()}'"
    dead = []
    for run in patiently(client().search_runs, experiments, condition, max_results=1000):
        tags = run.data.tags
        owner = {name: tags.get(_PROCESS_TAG + name, "") for name in ("host", "pid", "started")}
        if processes.is_dead(owner):
            patiently(client().set_terminated, run.info.run_id, "KILLED")
            dead.append(run)
    return dead


class TrackedRun:
    """One MLflow run that is being written."""

    def __init__(self, experiment: str, run_id: str, uri: str) -> None:
        self.experiment = experiment
        self.id = run_id
        self.uri = uri.rstrip("/")
        self._sender = MetricSender(client(), run_id)

    @classmethod
    def start(
        cls, experiment: str, name: str, *, parent: str | None = None, tags: Mapping[str, str] | None = None
    ) -> TrackedRun:
        """Open a run, marked with the process that it belongs to."""
        every = {
            **{_PROCESS_TAG + key: value for key, value in processes.identity().items()},
            "mlflow.user": _user(),
            "mlflow.source.name": "prorec",
            "mlflow.source.type": "LOCAL",
            **({"mlflow.parentRunId": parent} if parent else {}),
            **(tags or {}),
        }
        run = patiently(client().create_run, experiment, tags=every, run_name=name)
        return cls(experiment, run.info.run_id, run.info.artifact_uri)

    @property
    def artifact_uri(self) -> str:
        """Where the described files of the stage go."""
        return f"{self.uri}/{ARTIFACT_FOLDER}"

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested mappings become names with dots."""
        from mlflow.entities import Param

        entries = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in flatten(values)]
        for start in range(0, len(entries), 100):
            part = entries[start : start + 100]
            patiently(client().log_batch, self.id, params=part)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        entries = [RunTag(name, value) for name, value in values.items()]
        patiently(client().log_batch, self.id, tags=entries)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log what was measured at one step, in one batch; never waits and never fails."""
        if values:
            self._sender.send(values, step)

    def data_set(self, data: DataSet) -> None:
        """Log a table as an input of the run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        schema = [{"name": column, "type": kind, "required": True} for column, kind in data.columns.items()]
        entity = Dataset(
            name=data.name,
            digest=data.digest[:36],
            source_type="http" if data.source.startswith("http") else "local",
            source=json.dumps({"uri": data.source}),
            schema=json.dumps({"mlflow_colspec": schema}) if schema else None,
            profile=json.dumps({"num_rows": data.rows}) if data.rows is not None else None,
        )
        entry = DatasetInput(entity, tags=[InputTag("mlflow.data.context", "stage input")])
        patiently(client().log_inputs, self.id, datasets=[entry])

    def upload(self, folder: Path, last: str) -> None:
        """Store the files of a folder, the file named `last` after all others."""
        for path in sorted(folder.iterdir()):
            if path.name == last:
                continue
            if path.is_dir():
                target = f"{ARTIFACT_FOLDER}/{path.name}"
                patiently(client().log_artifacts, self.id, str(path), target)
            else:
                patiently(client().log_artifact, self.id, str(path), ARTIFACT_FOLDER)
        patiently(client().log_artifact, self.id, str(folder / last), ARTIFACT_FOLDER)

    def finish(self, status: str = "FINISHED") -> None:
        """Send what is unsent and close the run."""
        if status == "FINISHED":
            self._sender.close()
            patiently(client().set_terminated, self.id, status)
            return
        # A stage that failed has its own error to show, and the next run closes what stays open.
        with contextlib.suppress(Exception):
            self._sender.close(at_most=5.0)
        with contextlib.suppress(Exception):
            client().set_terminated(self.id, status)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Pairs of dotted name and value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
