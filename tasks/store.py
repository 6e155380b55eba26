"""Stored artifacts: fetching them to a local folder, and finding out whether they are whole.

Knows MLflow's artifact store, manifests and refs; knows nothing of stages or of Prefect.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from prorec_core.artifacts import MANIFEST, ArtifactRef, Manifest, read_json, sha256_file, verify
from prorec_core.errors import UserError
from tasks import places
from tasks.patience import TrackingAwayError, patiently
from tasks.tracking import ARTIFACT_FOLDER, client

STAGE_TAG = "prorec.stage"
URI_TAG = "prorec.uri"
DIGEST_TAG = "prorec.digest"
MANIFEST_TAG = "prorec.manifest_sha256"
MODEL_TAG = "prorec.model_id"
MODEL_URI_TAG = "prorec.model_uri"
MODEL_MANIFEST_TAG = "prorec.model_manifest_sha256"
REPLACED_TAG = "prorec.replaced_by"
"""On a run whose artifact was found damaged: the run that made it anew."""


def as_ref(value: Any, stage: str) -> ArtifactRef:
    """A stage's reference, whatever a cache made of it.

    Raises:
        ValueError: it is no reference, or one to another stage's artifact.
    """
    ref = value if isinstance(value, ArtifactRef) else ArtifactRef.model_validate(value)
    if ref.stage != stage:
        raise ValueError(f"a reference to an artifact of '{ref.stage}' stands where one of '{stage}' is expected")
    return ref


def fetch(ref: ArtifactRef) -> Path:
    """A local folder with the artifact's files, all of them as the manifest says.

    An artifact on this machine is used where it is; another is downloaded once and kept under its digest.

    Raises:
        UserError: the artifact is gone or damaged.
    """
    folder = places.local_path(ref.uri)
    if folder is None:
        folder = places.downloads(ref.digest)
        with places.lock(f"download-{ref.digest}"):
            if _problems(folder, ref.digest):
                _download(ref.uri, folder)
    problems = _problems(folder, ref.digest)
    if problems:
        raise UserError(problems[0], cure=f"Run the stage '{ref.stage}' again")
    return folder


def check(ref: ArtifactRef) -> list[str]:
    """What is wrong with a stored artifact, one sentence each; empty when all is well.

    Looks at every file's content where the store is on this machine. Elsewhere at the manifest and at every
    file's size; the content is checked when it is fetched.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = patiently(client().get_run, ref.run_id)
    except MlflowException as error:
        return [f"{ref.uri}: its MLflow run cannot be read ({error.message})"]
    if run.info.lifecycle_stage != "active":
        return [f"{ref.uri}: its MLflow run {ref.run_id} was deleted"]
    folder = places.local_path(ref.uri)
    tags = run.data.tags
    problems = (
        _problems(folder, ref.digest, tags.get(MANIFEST_TAG))
        if folder
        else _remote_problems(ref, tags.get(MANIFEST_TAG))
    )
    model_id = tags.get(MODEL_TAG)
    return problems + (check_model(model_id, tags.get(MODEL_MANIFEST_TAG)) if model_id else [])


def check_model(model_id: str, manifest_sha256: str | None) -> list[str]:
    """What is wrong with the files of a logged model; empty when all is well."""
    from mlflow.exceptions import MlflowException

    try:
        location = patiently(client().get_logged_model, model_id).artifact_location
    except MlflowException as error:
        return [f"models:/{model_id}: the model cannot be read ({error.message})"]
    folder = places.local_path(location)
    return [] if folder is None else _problems(folder, None, manifest_sha256)


def fetch_model(location: str, manifest_sha256: str) -> Path:
    """A local folder with the files of a logged model, all of them as its manifest says; downloaded at most once.

    Raises:
        UserError: a file is gone or damaged.
    """
    folder = places.local_path(location)
    if folder is None:
        folder = places.downloads(manifest_sha256)
        with places.lock(f"download-{manifest_sha256}"):
            if _problems(folder, None, manifest_sha256):
                _download(location, folder)
    problems = _problems(folder, None, manifest_sha256)
    if problems:
        raise UserError(problems[0], cure="Run the experiment again with --force train_generator")
    return folder


def model_uri(ref: ArtifactRef) -> str | None:
    """The address of the registered model that was made with an artifact, if any."""
    return patiently(client().get_run, ref.run_id).data.tags.get(MODEL_URI_TAG)


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


def _remote_problems(ref: ArtifactRef, manifest_sha256: str | None) -> list[str]:
    from mlflow.exceptions import MlflowException

    try:
        with tempfile.TemporaryDirectory() as scratch:
            fetched = patiently(client().download_artifacts, ref.run_id, f"{ARTIFACT_FOLDER}/{MANIFEST}", scratch)
            path = Path(fetched)
            if manifest_sha256 and sha256_file(path) != manifest_sha256:
                return [f"{ref.uri}/{MANIFEST}: the manifest was changed after it was stored"]
            manifest = Manifest.model_validate(read_json(path))
        sizes: dict[str, int] = {}
        folders = [ARTIFACT_FOLDER]
        while folders:
            folder = folders.pop()
            for entry in patiently(client().list_artifacts, ref.run_id, folder):
                if entry.is_dir:
                    folders.append(entry.path)
                else:
                    sizes[entry.path.removeprefix(f"{ARTIFACT_FOLDER}/")] = entry.file_size or 0
    except TrackingAwayError:
        raise
    except (MlflowException, OSError, ValueError) as error:
        return [f"{ref.uri}: cannot be read ({error})"]
    if manifest.digest != ref.digest:
        return [f"{ref.uri}/{MANIFEST}: describes another artifact than the one asked for"]
    return [
        f"{ref.uri}/{file.path}: " + ("the file is missing" if file.path not in sizes else "its size differs")
        for file in manifest.files
        if sizes.get(file.path) != file.bytes
    ]


def _download(uri: str, folder: Path) -> None:
    import mlflow.artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    try:
        fetched = patiently(
            mlflow.artifacts.download_artifacts,
            artifact_uri=uri,
            dst_path=str(scratch),
            tracking_uri=places.tracking_uri(),
        )
        shutil.rmtree(folder, ignore_errors=True)
        Path(fetched).replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def verify_all() -> tuple[int, list[str]]:
    """Check every stored artifact, and every logged model: how many were looked at, and what is wrong.

    Artifacts that are not on this machine are downloaded to be looked at.
    """
    if places.nothing_tracked():
        return 0, []
    experiments = [
        each.experiment_id for each in patiently(client().search_experiments) if each.name.startswith("prorec-")
    ]
    looked_at = 0
    problems: list[str] = []
    condition = f"tags.`{DIGEST_TAG}` != '' and attributes.status = 'FINISHED'"
    token: str | None = None
    while True:
        page = patiently(client().search_runs, experiments, condition, page_token=token)
        for run in page:
            tags = run.data.tags
            if REPLACED_TAG in tags:
                continue
            looked_at += 1
            ref = ArtifactRef(stage=tags[STAGE_TAG], digest=tags[DIGEST_TAG], run_id=run.info.run_id, uri=tags[URI_TAG])
            problems += check(ref)
            if not places.local_path(ref.uri):
                problems += _content_problems(ref)
        token = page.token
        if not token:
            return looked_at, problems


def _content_problems(ref: ArtifactRef) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "artifact"
        try:
            _download(ref.uri, folder)
        except Exception as error:
            return [f"{ref.uri}: cannot be downloaded ({error})"]
        return [problem.replace(str(folder), ref.uri) for problem in _problems(folder, ref.digest)]
