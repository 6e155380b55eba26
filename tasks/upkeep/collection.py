"""Deleting what nothing keeps: artifacts, files of dead runs, models without a version, and what lies about locally.

Knows the order in which a thing may be deleted so that, wherever it is killed, what is half gone counts as gone: the
run is marked, then the manifest goes, then the other files. Knows nothing of why a thing is kept. The runs themselves,
with their parameters and metrics, stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from prorec.tasks.local import paths
from prorec.tasks.registry import models
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import ARTIFACT_FOLDER, client
from prorec.tasks.tracking.retries import TrackingAwayError, paged, retrying
from prorec.tasks.tracking.store import is_active, is_stored
from prorec.tasks.upkeep.local_leftovers import Leftover, left_locally
from prorec.tasks.upkeep.old_versions import deletion
from prorec.tasks.upkeep.retention import Inventory, Stored, kept_now
from prorec_core.artifacts import MANIFEST

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

DELETING = "deleting"
"""Value of the mark on a run whose artifact is being deleted; a time once that is done."""


@dataclass
class Plan:
    """What is to be deleted.

    Attributes:
        artifacts: stored artifacts that nothing keeps.
        others: everything else, in the order in which it is to go.
        inventory: what the plan was made of.
    """

    inventory: Inventory
    artifacts: list[Stored] = field(default_factory=list)
    others: list[Leftover] = field(default_factory=list)

    def everything(self) -> Iterator[tuple[str, str, int]]:
        """Kind, name and size of each thing."""
        for version in self.inventory.outdated:
            yield "versions of models", version.title, 0
        for each in self.artifacts:
            yield f"artifacts of {each.ref.stage}", f"{each.ref.digest[:12]} {each.experiment}", each.bytes
        for leftover in self.others:
            yield leftover.kind, leftover.name, leftover.bytes


@dataclass
class Collected:
    """What was deleted, how many bytes that was, what came into use in the meantime, and what failed."""

    count: int = 0
    bytes: int = 0
    spared: int = 0
    failures: list[str] = field(default_factory=list)


def make_plan(inventory: Inventory, keep_days: float) -> Plan:
    """What may be deleted.

    Args:
        inventory: the store, looked at with the same `keep_days`.
        keep_days: local files that may still be of use are left for as many days.
    """
    unkept = [artifact for artifact in inventory.stored if not inventory.kept_by(artifact)]
    plan = Plan(inventory, unkept)
    gone = {artifact.ref.run_id for artifact in unkept}
    plan.others += [*_left_by_runs(inventory), *_models(inventory, gone)]
    plan.others += left_locally(inventory, keep_days)
    return plan


def collect(plan: Plan, report: Callable[[str], None] = lambda _: None) -> Collected:
    """Delete what a plan names, but for what has come into use since it was made.

    Args:
        plan: what to delete.
        report: called with the name of each thing before it goes.
    """
    done, inventory = Collected(), plan.inventory
    if inventory.outdated and inventory.keep_versions is not None:
        # First: what they alone keep is in use until they are gone.
        delete = deletion(inventory.keep_versions, inventory.since)
        for version in inventory.outdated:
            _try(f"version {version.title}", 0, partial(delete, version), done, report)
    for artifact in plan.artifacts:
        _mark(artifact.ref.run_id, DELETING)
    # A run that found one of them whole before it was marked has said so on its own run by now.
    needed = kept_now(inventory) if plan.artifacts else set()
    for artifact in plan.artifacts:
        if artifact.ref.run_id in needed:
            retrying(client().delete_tag, artifact.ref.run_id, store.COLLECTED_TAG)
            done.spared += 1
            continue
        _try(f"{artifact.ref.stage} {artifact.ref.digest[:12]}", artifact.bytes, _of_run(artifact), done, report)
    for leftover in plan.others:
        _try(f"{leftover.kind}: {leftover.name}", leftover.bytes, leftover.delete, done, report)
    return done


def _try(name: str, size: int, delete: Callable[[], bool], done: Collected, report: Callable[[str], None]) -> None:
    import requests
    from mlflow.exceptions import MlflowException

    report(name)
    try:
        if delete():
            done.count += 1
            done.bytes += size
        else:
            done.spared += 1
    except TrackingAwayError:
        raise
    except (OSError, MlflowException, requests.RequestException) as error:
        done.failures.append(f"{name}: {(str(error).splitlines() or [''])[0]}")


def _of_run(artifact: Stored) -> Callable[[], bool]:
    return lambda: _delete_files(artifact.ref.run_id, artifact.ref.uri.removesuffix(f"/{ARTIFACT_FOLDER}"))


def _mark(run_id: str, value: str) -> None:
    retrying(client().set_tag, run_id, store.COLLECTED_TAG, value)


def _delete_files(run_id: str, uri: str) -> bool:
    """Delete the artifact in a run, the manifest first; the mark then says when that was."""
    files = _repository(uri)
    for path in (f"{ARTIFACT_FOLDER}/{MANIFEST}", ARTIFACT_FOLDER):
        retrying(files.delete_artifacts, path)
    _mark(run_id, datetime.now(UTC).isoformat(timespec="seconds"))
    return True


def _repository(uri: str) -> ArtifactRepository:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=paths.tracking_uri())


def _size(uri: str, path: str | None = None) -> int:
    """Size of all files at a place of the store; 0 where there are none."""
    files, total, todo = _repository(uri), 0, [path]
    while todo:
        for entry in retrying(files.list_artifacts, todo.pop()):
            if entry.is_dir:
                todo.append(entry.path)
            else:
                total += entry.file_size or 0
    return total


def _left_by_runs(inventory: Inventory) -> Iterator[Leftover]:
    """Files of stages that failed, were killed, were found damaged, or whose deletion was not finished."""
    for run in inventory.runs:
        tags = run.data.tags
        if store.STAGE_TAG not in tags or is_active(run) or is_stored(run):
            continue
        mark = tags.get(store.COLLECTED_TAG)
        if mark not in {None, DELETING}:
            continue
        uri = run.info.artifact_uri
        size = _size(uri, ARTIFACT_FOLDER)
        if size or mark:
            name = f"{tags[store.STAGE_TAG]} {run.info.run_id}"
            yield Leftover("left-over files of runs", name, size, _marked_and_deleted(run, uri))


def _marked_and_deleted(run: Run, uri: str) -> Callable[[], bool]:
    def delete() -> bool:
        # One that was still at work may have looked ended: MLflow closes a run for a moment when it logs a model.
        now = retrying(client().get_run, run.info.run_id)
        if is_active(now) or is_stored(now):
            return False
        _mark(run.info.run_id, DELETING)
        return _delete_files(run.info.run_id, uri)

    return delete


def _models(inventory: Inventory, gone: set[str]) -> Iterator[Leftover]:
    """Logged models that no version, no artifact that stays and no run that goes on is made of.

    A version that somebody copied from another names no logged model, but its run.
    """
    used = {version.model_id for version in inventory.versions}
    used |= {each.model_id for each in inventory.stored if each.model_id and each.ref.run_id not in gone}
    needing = {run.info.run_id for run in inventory.runs if is_active(run)}
    needing |= models.copied_from({each.title for each in inventory.outdated})
    for model in _logged_models(sorted({run.info.experiment_id for run in inventory.runs})):
        if model.model_id not in used and model.source_run_id not in needing:
            size = _size(model.artifact_location)
            yield Leftover("models without a version", model.model_id, size, _model_deleted(model))


def _logged_models(experiments: list[str]) -> Iterator[LoggedModel]:
    if experiments:
        yield from paged(client().search_logged_models, experiment_ids=experiments)


def _is_at_work(run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return is_active(retrying(client().get_run, run_id))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def _model_deleted(model: LoggedModel) -> Callable[[], bool]:
    def delete() -> bool:
        # It may have come into use since the plan was made.
        of_runs = mlflow_runs.search(f"tags.`{store.MODEL_TAG}` = '{model.model_id}'")
        if any(map(is_stored, of_runs)) or any(each.model_id == model.model_id for each in models.versions()):
            return False
        if (source := model.source_run_id) and (_is_at_work(source) or models.copied_from(run_id=source)):
            return False
        files = _repository(model.artifact_location)
        retrying(files.delete_artifacts, MANIFEST)
        retrying(files.delete_artifacts)
        retrying(client().delete_logged_model, model.model_id)
        return True

    return delete
