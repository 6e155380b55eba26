"""Stored artifacts: fetching them to a local folder, and finding out whether they are whole.

Knows MLflow's artifact store, manifests and refs; knows nothing of stages or of Prefect.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec.tasks.local import databases, paths
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import client
from prorec.tasks.tracking.retries import TrackingAwayError, retrying
from prorec_core.artifacts import MANIFEST, ArtifactRef, Manifest, read_json, sha256_file, verify
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities import Run

STAGE_TAG = "prorec.stage"
KEY_TAG = "prorec.key"
URI_TAG = "prorec.uri"
DIGEST_TAG = "prorec.digest"
MANIFEST_TAG = "prorec.manifest_sha256"
MODEL_TAG = "prorec.model_id"
MODEL_URI_TAG = "prorec.model_uri"
MODEL_MANIFEST_TAG = "prorec.model_manifest_sha256"
REPLACED_TAG = "prorec.replaced_by"
"""On a run whose artifact was found damaged: the run that made it anew."""

COLLECTED_TAG = "prorec.collected"
"""On a run whose artifact was deleted to save space: when, or that it is being deleted."""

COMPARISON = "compare"
"""Stage of what a comparison leaves, which counts however its run ended: all that did not fail is in it."""

_WITH_DIGEST = f"tags.`{DIGEST_TAG}` != ''"
_STORED = f"{_WITH_DIGEST} and attributes.status = 'FINISHED'"
_GONE = {REPLACED_TAG, COLLECTED_TAG}
_ACTIVE = {"RUNNING", "SCHEDULED"}
_log = logging.getLogger(__name__)


def is_active(run: Run) -> bool:
    """Whether a run has not ended, as far as is known."""
    return run.info.status in _ACTIVE


def is_stored(run: Run) -> bool:
    """Whether a run left an artifact that is there."""
    tags = run.data.tags
    done = run.info.status == "FINISHED" or (tags.get(STAGE_TAG) == COMPARISON and not is_active(run))
    return done and DIGEST_TAG in tags and not _GONE & tags.keys()


def as_ref(value: Any, stage: str) -> ArtifactRef:
    """A stage's reference, whatever a cache made of it.

    Raises:
        ValueError: it is no reference, or one to another stage's artifact.
    """
    ref = value if isinstance(value, ArtifactRef) else ArtifactRef.model_validate(value)
    if ref.stage != stage:
        raise ValueError(f"a reference to an artifact of '{ref.stage}' stands where one of '{stage}' is expected")
    return ref


def _ref_of(run: Run) -> ArtifactRef:
    tags = run.data.tags
    return ArtifactRef(stage=tags[STAGE_TAG], digest=tags[DIGEST_TAG], run_id=run.info.run_id, uri=tags[URI_TAG])


def tags_of(uri: str, folder: Path, manifest: Manifest) -> dict[str, str]:
    """What a run says of the artifact that it stored.

    Args:
        uri: where it is.
        folder: a folder with its files and the manifest.
        manifest: what the manifest says.
    """
    return {URI_TAG: uri, MANIFEST_TAG: sha256_file(folder / MANIFEST), DIGEST_TAG: manifest.digest}


def find(key: str) -> ArtifactRef | None:
    """The newest artifact that any process on any machine stored under a cache key, unless it is gone."""
    return next(_stored_under(key), None)


def find_all(key: str) -> list[ArtifactRef]:
    """All artifacts that were stored under a cache key, unless they are gone; the newest first."""
    return list(_stored_under(key))


def _stored_under(key: str) -> Iterator[ArtifactRef]:
    condition = f"tags.`{KEY_TAG}` = '{key}' and {_STORED}"
    runs = mlflow_runs.search(condition, order_by=["attributes.end_time DESC"])
    return (_ref_of(run) for run in runs if not _GONE & run.data.tags.keys())


def fetch(ref: ArtifactRef) -> Path:
    """A local folder with the artifact's files, all of them as the manifest says.

    An artifact on this machine is used where it is; another is downloaded once and kept under its digest.

    Raises:
        UserError: the artifact is gone or damaged.
    """
    folder, manifest_sha256 = paths.local_path(ref.uri), None
    if folder is None:
        folder, manifest_sha256 = paths.downloads(ref.digest), _manifest_sha256(ref)
        with paths.lock(f"download-{ref.digest}"):
            if damaged := _problems(folder, ref.digest):
                _warn_of_damage(folder, damaged)
                _download(ref.uri, folder)
            elif _problems(folder, ref.digest, manifest_sha256):
                # It is damaged, or another artifact's of the very same files.
                _download(f"{ref.uri}/{MANIFEST}", folder / MANIFEST)
    problems = _problems(folder, ref.digest, manifest_sha256)
    if problems:
        raise UserError(problems[0], cure=f"Run the stage '{ref.stage}' again")
    return folder


def _manifest_sha256(ref: ArtifactRef) -> str | None:
    """Hash of an artifact's manifest, whose digest is of the other files alone; None if its run cannot be read."""
    from mlflow.exceptions import MlflowException

    try:
        return retrying(client().get_run, ref.run_id).data.tags.get(MANIFEST_TAG)
    except MlflowException:
        return None


def _warn_of_damage(folder: Path, problems: list[str]) -> None:
    if folder.exists():
        _log.warning("downloaded once more, since the local copy is damaged: %s", problems[0])


def is_of(ref: ArtifactRef, key: str) -> bool:
    """Whether a reference is to an artifact that was stored under a cache key, as far as its run can be read."""
    from mlflow.exceptions import MlflowException

    try:
        tags = retrying(client().get_run, ref.run_id).data.tags
    except MlflowException:
        return True
    return tags.get(KEY_TAG) == key and tags.get(DIGEST_TAG) == ref.digest and tags.get(URI_TAG) == ref.uri


def check(ref: ArtifactRef, *, content: bool = False) -> list[str]:
    """What is wrong with a stored artifact and with the model made with it, one sentence each; empty when all is well.

    Looks at every file's content where the store is on this machine. Elsewhere at the manifest and at every
    file's size; the content is checked when it is fetched, or here if `content` says so.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = retrying(client().get_run, ref.run_id)
    except MlflowException as error:
        return [f"{ref.uri}: its MLflow run cannot be read ({error.message})"]
    if run.info.lifecycle_stage != "active":
        return [f"{ref.uri}: its MLflow run {ref.run_id} was deleted"]
    if COLLECTED_TAG in run.data.tags:
        return [f"{ref.uri}: it was deleted to save space"]
    tags = run.data.tags
    problems = _stored_problems(ref.uri, ref.digest, tags.get(MANIFEST_TAG), content)
    model_id = tags.get(MODEL_TAG)
    return problems + (check_model(model_id, tags.get(MODEL_MANIFEST_TAG), content=content) if model_id else [])


def check_model(model_id: str, manifest_sha256: str | None, *, content: bool = False) -> list[str]:
    """What is wrong with the files of a logged model, looked at as `check` does; empty when all is well."""
    from mlflow.exceptions import MlflowException

    try:
        location = retrying(client().get_logged_model, model_id).artifact_location
    except MlflowException as error:
        return [f"models:/{model_id}: the model cannot be read ({error.message})"]
    return _stored_problems(location, None, manifest_sha256, content)


def fetch_model(location: str, manifest_sha256: str) -> Path:
    """A local folder with the files of a logged model, all of them as its manifest says; downloaded at most once.

    Raises:
        UserError: a file is gone or damaged.
    """
    folder = paths.local_path(location)
    if folder is None:
        folder = paths.downloads(manifest_sha256)
        with paths.lock(f"download-{manifest_sha256}"):
            if damaged := _problems(folder, None, manifest_sha256):
                _warn_of_damage(folder, damaged)
                _download(location, folder)
    problems = _problems(folder, None, manifest_sha256)
    if problems:
        raise UserError(problems[0], cure="Run the experiment again with --force train_generator")
    return folder


def mark_replaced(damaged: ArtifactRef, by: ArtifactRef) -> None:
    """Mark the run of a damaged artifact that was made again, so that it is not reported for ever."""
    from mlflow.exceptions import MlflowException

    # The run itself may be what is gone.
    with contextlib.suppress(MlflowException):
        client().set_tag(damaged.run_id, REPLACED_TAG, by.run_id)


def _problems(folder: Path, digest: str | None, manifest_sha256: str | None = None) -> list[str]:
    found = verify(folder)
    if found:
        return found
    path = folder / MANIFEST
    if manifest_sha256 and sha256_file(path) != manifest_sha256:
        return [f"{path}: the manifest was changed after it was stored"]
    if digest and Manifest.model_validate(read_json(path)).digest != digest:
        return [f"{path}: describes another artifact than the one asked for"]
    return []


def _stored_problems(uri: str, digest: str | None, manifest_sha256: str | None, content: bool) -> list[str]:
    folder = paths.local_path(uri)
    if folder is not None:
        return _problems(folder, digest, manifest_sha256)
    return (_content_problems if content else _remote_problems)(uri, digest, manifest_sha256)


def _remote_problems(uri: str, digest: str | None, manifest_sha256: str | None) -> list[str]:
    from mlflow.artifacts import list_artifacts
    from mlflow.exceptions import MlflowException

    try:
        sizes: dict[str, int] = {}
        folders = [""]
        while folders:
            folder = folders.pop()
            place = f"{uri}/{folder}".rstrip("/")
            for entry in retrying(list_artifacts, artifact_uri=place, tracking_uri=paths.tracking_uri()):
                name = folder + entry.path.rpartition("/")[2]
                if entry.is_dir:
                    folders.append(f"{name}/")
                else:
                    sizes[name] = entry.file_size or 0
        # A server before an object store answers a request for what is not there as if it were ill.
        if MANIFEST not in sizes:
            return [f"{uri}/{MANIFEST}: the file is missing"]
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / MANIFEST
            _download(f"{uri}/{MANIFEST}", path)
            if manifest_sha256 and sha256_file(path) != manifest_sha256:
                return [f"{uri}/{MANIFEST}: the manifest was changed after it was stored"]
            manifest = Manifest.model_validate(read_json(path))
    except TrackingAwayError:
        raise
    except (MlflowException, OSError, ValueError) as error:
        return [f"{uri}: cannot be read ({error})"]
    if digest and manifest.digest != digest:
        return [f"{uri}/{MANIFEST}: describes another artifact than the one asked for"]
    return [
        f"{uri}/{file.path}: " + ("the file is missing" if file.path not in sizes else "its size differs")
        for file in manifest.files
        if sizes.get(file.path) != file.bytes
    ]


def _download(uri: str, folder: Path) -> None:
    import mlflow.artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    try:
        fetched = retrying(
            mlflow.artifacts.download_artifacts,
            artifact_uri=uri,
            dst_path=str(scratch),
            tracking_uri=paths.tracking_uri(),
        )
        shutil.rmtree(folder, ignore_errors=True)
        Path(fetched).replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def verify_all() -> tuple[int, list[str]]:
    """Check every stored artifact, every logged model, what whole runs keep beside, and this machine's databases: how
    many artifacts were looked at, and what is wrong.

    Artifacts that are not on this machine are downloaded to be looked at.
    """
    problems = [problem for path in _databases() for problem in databases.problems(path)]
    if paths.nothing_tracked():
        database = paths.sqlite_path(paths.tracking_uri())
        if database is not None and databases.has_artifacts(database):
            problems.append(f"{database}: the file is missing, and there are artifacts beside it")
        return 0, problems
    looked_at = 0
    for run in mlflow_runs.search(f"tags.`{mlflow_runs.EXPERIMENT_TAG}` != ''"):
        problems += _text_problems(run)
    for run in filter(is_stored, mlflow_runs.search(_WITH_DIGEST)):
        looked_at += 1
        problems += check(_ref_of(run), content=True)
    return looked_at, problems


def _databases() -> list[Path]:
    tracked = {paths.sqlite_path(uri) for uri in (paths.tracking_uri(), paths.embedded_tracking_uri())}
    return [
        *sorted(path for path in tracked if path is not None),
        paths.prefect_home() / "prefect.db",
        *sorted(paths.studies().glob("*.db")),
    ]


def _text_problems(run: Run) -> list[str]:
    """What is wrong with the texts beside a run of a whole experiment; those of a run that has not ended may be absent.

    Earlier versions kept no hash of them: there they have to be JSON.
    """
    found = []
    for name in (mlflow_runs.EXPERIMENT_FILE, mlflow_runs.SUMMARY_FILE):
        if f"{mlflow_runs.TEXT_TAG}{name}" not in run.data.tags and not _lists(run, name):
            continue
        try:
            json.loads(mlflow_runs.read_text(run.info.run_id, name))
        except UserError as error:
            found.append(str(error))
        except ValueError as error:
            found.append(f"MLflow run {run.info.run_id}: the file '{name}' of the run is damaged ({error}).")
    return found


def _lists(run: Run, name: str) -> bool:
    return any(each.path == name for each in retrying(client().list_artifacts, run.info.run_id))


def _content_problems(uri: str, digest: str | None, manifest_sha256: str | None) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "artifact"
        try:
            _download(uri, folder)
        except Exception as error:
            return [f"{uri}: cannot be downloaded ({error})"]
        return [problem.replace(str(folder), uri) for problem in _problems(folder, digest, manifest_sha256)]
