"""Runs in MLflow: a parent a flow run, a child a stage; parameters, data sets, artifacts, links to Prefect.

Knows MLflow's client and nothing of the method. Imports MLflow when first used: that takes seconds.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from prorec.tasks.local import addresses, databases, paths, processes
from prorec.tasks.local.machine_errors import explained
from prorec.tasks.tracking.datasets import DataSet
from prorec.tasks.tracking.metrics import MetricSender
from prorec.tasks.tracking.retries import paged, retrying
from prorec_core.errors import UserError, one_line
from prorec_core.visible import in_markdown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

ARTIFACT_FOLDER = "artifact"
"""Where in a run's artifacts the described files of a stage are."""

PAGE_VARIABLE = "PROREC_MLFLOW_PAGE"
NOTE_TAG = "mlflow.note.content"
"""What MLflow shows as the description of a run."""

FAILURE_TAG = "prorec.failure"
"""On a run that failed or was killed: why, in one line."""

EXPERIMENT_TAG = "prorec.experiment"
"""On the run of a whole experiment: the experiment's name."""

FOLDER_TAG = "prorec.folder"
"""On the run of a whole experiment: the folder in which it was started, at which its relative paths start."""

VARIANT_TAG = "prorec.variant"
"""On the run of a variant of a comparison, or of a trial of a tuning: its name."""

EXPERIMENT_FILE = "experiment.json"
"""Beside that run: the experiment with every value."""

SUMMARY_FILE = "summary.json"
"""Beside that run, once it is done: what the flow returns."""

TEXT_TAG = "prorec.sha256."
"""With the name of such a file: the sha256 of what was written to it."""

REPORT_TAG = "prorec.report"
"""On the run of a whole experiment or comparison: the URI of its report."""

PARENT_TAG = "mlflow.parentRunId"
PROCESS_TAG = "prorec.process."
SIGN_TAG = f"{PROCESS_TAG}sign"
FLOW_RUN_TAG, FLOW_RUN_NAME_TAG, FLOW_TAG = "prefect.flow_run_id", "prefect.flow_run_name", "prefect.flow_id"
TASK_RUN_TAG, ATTEMPT_TAG = "prefect.task_run_id", "prefect.attempt"
_TRAINING = "workflowType=machine_learning"
"""In an address: whoever comes for the first time sees the pages of trainings, not those of language models."""

HEADLINE = {"recall_at_10": "Recall at 10", "ndcg_at_10": "NDCG at 10"}
"""On the run of a whole experiment: what the recommended scorer reached on test; capitals sort before all others."""

_VIEW_KEY = "prorec"
_VIEW_TAG = f"mlflow.sharedViewState.{_VIEW_KEY}"
_COLUMNS = (
    *(f"metrics.`{name}`" for name in HEADLINE.values()),
    "tags.`prorec.scorer`",
    "params.`seed`",
    "attributes.`Dataset`",
)
_VIEW = json.dumps({"selectedColumns": _COLUMNS, "columnOrder": _COLUMNS})
"""On an experiment: the columns of its table of runs as MLflow's pages keep a view that is shared."""

_STORE_TAG = "prorec.store"
_STORE_NOTE = (
    "Holds the identity of this store, which cache keys depend on, and who makes which artifact now. Leave it here."
)
_LONGEST_VALUE = 6000
_LONGEST_TAG = 8000
_log = logging.getLogger(__name__)


@cache
def _client(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It logs tracebacks of what it raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    databases.prepare_mlflow(uri)
    databases.expect_answer(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def client() -> MlflowClient:
    """The client of the tracking store in use."""
    return _client(paths.tracking_uri())


def experiment_name(name: str) -> str:
    """The MLflow experiment, and the registered model, of an experiment of this project."""
    return f"prorec-{name}"


def experiment_id(name: str) -> str:
    """The MLflow experiment of an experiment of this project, made where it does not exist.

    Raises:
        UserError: it was deleted in MLflow, which keeps its name.
    """
    title = experiment_name(name)
    found = _made_once(title, {"mlflow.experimentKind": "custom_model_development", _VIEW_TAG: _VIEW})
    if found.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment '{title}' was deleted",
            cure=f"Restore it (mlflow experiments restore -x {found.experiment_id}) or choose another name",
        )
    if found.tags.get(_VIEW_TAG) != _VIEW:
        retrying(client().set_experiment_tag, found.experiment_id, _VIEW_TAG, _VIEW)
    return str(found.experiment_id)


def _made_once(title: str, tags: dict[str, str]) -> Experiment:
    """The MLflow experiment of this name; of two processes that come first at the same time, one makes it."""
    from mlflow.exceptions import MlflowException

    while (found := retrying(client().get_experiment_by_name, title)) is None:
        try:
            retrying(client().create_experiment, title, artifact_location=_location(), tags=tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    return found


def _location() -> str | None:
    """Where an experiment's artifacts go; a server decides that itself."""
    return None if paths.tracks_over_http() else paths.file_uri(paths.store())


def identity() -> str:
    """What tells the tracking store in use from every other one, however it is reached."""
    return _own(paths.tracking_uri())[1]


def store_experiment() -> str:
    """The MLflow experiment that holds what this store is known by, and who is at work on what."""
    return _own(paths.tracking_uri())[0]


@cache
def _own(_uri: str) -> tuple[str, str]:
    found = _made_once(addresses.STORE, {_STORE_TAG: uuid4().hex, NOTE_TAG: _STORE_NOTE})
    if found.lifecycle_stage != "active":
        _log.warning("The MLflow experiment '%s' was deleted and is needed: it is restored", addresses.STORE)
        with contextlib.suppress(Exception):
            # Another process may have been faster; what is wrong otherwise is told when a tag is set.
            client().restore_experiment(found.experiment_id)
    return str(found.experiment_id), str(found.tags[_STORE_TAG])


def page(experiment: str, run_id: str, file: str = "") -> str | None:
    """The address of a run's page, or of one of its files, where a server shows one."""
    base = os.environ.get(PAGE_VARIABLE) or (paths.tracking_uri() if paths.tracks_over_http() else None)
    return f"{base.rstrip('/')}/{path_of_page(experiment, run_id, file)}" if base else None


def path_of_page(experiment: str, run_id: str, file: str = "") -> str:
    """The address of a run's page, or of one of its files, as seen from any other page of the same server."""
    below = f"/artifacts/{file}" if file else ""
    return f"#/experiments/{experiment}/runs/{run_id}{below}?{_TRAINING}"


def path_of_table(experiment: str) -> str:
    """The address of the table of an experiment's runs, with the columns that matter, as seen from any other page."""
    return f"#/experiments/{experiment}/runs?viewStateShareKey={_VIEW_KEY}&{_TRAINING}"


@cache
def experiment_of(run_id: str) -> str:
    """The MLflow experiment that a run belongs to."""
    return str(retrying(client().get_run, run_id).info.experiment_id)


def search(condition: str = "", order_by: Iterable[str] = ()) -> Iterator[Run]:
    """The runs in all of this project's experiments that meet a condition; fetched as they are asked for."""
    found = list(experiments())
    words: dict[str, Any] = {"filter_string": condition, "max_results": 200, "order_by": list(order_by)}
    yield from paged(client().search_runs, experiment_ids=found, **words) if found else ()


def experiments() -> dict[str, str]:
    """This project's MLflow experiments, however many others the server has: names of experiments by id."""
    prefix = experiment_name("")
    found = paged(client().search_experiments, filter_string=f"name LIKE '{prefix}%'")
    return {each.experiment_id: each.name.removeprefix(prefix) for each in found if each.name.startswith(prefix)}


def read_text(run_id: str, name: str) -> str:
    """The text that `TrackedRun.text` stored under this name.

    Raises:
        UserError: it is not there, or not as it was stored.
    """
    from mlflow.exceptions import MlflowException

    try:
        # Twice, where it was written again between its text and its tag.
        for _ in range(2):
            with tempfile.TemporaryDirectory() as scratch:
                content = Path(retrying(client().download_artifacts, run_id, name, scratch)).read_bytes()
            expected = retrying(client().get_run, run_id).data.tags.get(f"{TEXT_TAG}{name}", "").split()
            if not expected or hashlib.sha256(content).hexdigest() in expected:
                break
        else:
            changed = f"the file '{name}' of the run was changed after it was stored"
            raise UserError(changed, place=f"MLflow run {run_id}")
    except (MlflowException, OSError) as error:
        raise UserError(f"the file '{name}' of the run is gone ({error})", place=f"MLflow run {run_id}") from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"the file '{name}' of the run is damaged ({error})", place=f"MLflow run {run_id}") from error


def close_killed(run: Run, reason: str) -> None:
    """Close the run of a process that did not close it itself."""
    from mlflow.entities import RunTag

    note = f"**Killed.** {in_markdown(reason)}\n\n{run.data.tags.get(NOTE_TAG, '')}"[:_LONGEST_TAG]
    tags = [RunTag(FAILURE_TAG, reason), RunTag(NOTE_TAG, note)]
    retrying(client().log_batch, run.info.run_id, tags=tags)
    retrying(client().set_terminated, run.info.run_id, "KILLED")


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
            **{PROCESS_TAG + key: value for key, value in processes.identity().items()},
            SIGN_TAG: processes.sign_of_life(),
            "mlflow.user": _user(),
            "mlflow.source.name": "prorec",
            "mlflow.source.type": "LOCAL",
            **({PARENT_TAG: parent} if parent else {}),
            **(tags or {}),
        }
        run = retrying(client().create_run, experiment, tags=every, run_name=name)
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
            retrying(client().log_batch, self.id, params=part)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        entries = [RunTag(name, value[:_LONGEST_TAG]) for name, value in values.items()]
        retrying(client().log_batch, self.id, tags=entries)

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
        retrying(client().log_inputs, self.id, datasets=[entry])

    def model(self, model_id: str) -> None:
        """Say which logged model came of the run."""
        from mlflow.entities import LoggedModelOutput

        retrying(client().log_outputs, self.id, models=[LoggedModelOutput(model_id, step=0)])

    def upload(self, folder: Path, last: str) -> None:
        """Store the files of a folder, the file named `last` after all others.

        Where that fails, what a folder of this machine holds of them is removed.
        """
        try:
            self._upload(folder, last)
        except BaseException:
            if (stored := paths.local_path(self.artifact_uri)) is not None:
                shutil.rmtree(stored, ignore_errors=True)
            raise

    def _upload(self, folder: Path, last: str) -> None:
        for path in sorted(folder.iterdir()):
            if path.name == last:
                continue
            if path.is_dir():
                target = f"{ARTIFACT_FOLDER}/{path.name}"
                retrying(client().log_artifacts, self.id, str(path), target)
            else:
                retrying(client().log_artifact, self.id, str(path), ARTIFACT_FOLDER)
        retrying(client().log_artifact, self.id, str(folder / last), ARTIFACT_FOLDER)

    def text(self, name: str, content: str) -> None:
        """Store a text as a file beside those of the stage, and on the run what shows that it is whole."""
        tag, own = f"{TEXT_TAG}{name}", hashlib.sha256(content.encode()).hexdigest()
        before = retrying(client().get_run, self.id).data.tags.get(tag)
        if before not in (None, own):
            # Whoever is killed in between leaves one of both.
            self.tags({tag: f"{before} {own}"})
        retrying(client().log_text, self.id, content, name)
        if before != own:
            self.tags({tag: own})

    def finish(self, status: str = "FINISHED", reason: str = "", note: str = "") -> None:
        """Send what is unsent and close the run; one that failed or was killed with the reason on its page."""
        if status == "FINISHED":
            self._sender.close()
            retrying(client().set_terminated, self.id, status)
            return
        # What failed has its own error to show, and what stays open is closed as that of a dead process.
        with contextlib.suppress(Exception):
            self._sender.close(at_most=5.0)
        with contextlib.suppress(Exception):
            for name, value in ((FAILURE_TAG, reason), (NOTE_TAG, note)):
                if value:
                    client().set_tag(self.id, name, value[:_LONGEST_TAG])
        with contextlib.suppress(Exception):
            client().set_terminated(self.id, status)


def how_it_ended(error: BaseException) -> tuple[str, str]:
    """Status of a run that an error or an interruption ended, and the reason in one line."""
    return ("FAILED", one_line(explained(error) or error)) if isinstance(error, Exception) else ("KILLED", "stopped")


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
