"""Registered models: which version an address names, and what it recommends once its files were found whole.

Knows MLflow's registry and the files of a model. Runs no code that came with a model: this software reads its files.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from prorec.tasks.local import paths
from prorec.tasks.registry import models
from prorec.tasks.tracking import store
from prorec.tasks.tracking.mlflow_runs import client
from prorec.tasks.tracking.retries import TrackingAwayError, is_passing
from prorec_core.artifacts import sha256_json, write_json
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec_core.generation.recommender import Recommender

CHAMPION = "champion"
"""The alias of the version in use."""

_NAMED = re.compile(r"(models:/)?[^/@:]+(/(\d+|latest)|@[^/@]+)")
_log = logging.getLogger(__name__)


class RegisteredVersion(BaseModel):
    """One version of a registered model; two with equal fields have the same files."""

    name: str
    version: str
    model_id: str
    location: str
    manifest_sha256: str

    @property
    def uri(self) -> str:
        """The address of this version, whatever aliases do."""
        return f"models:/{self.name}/{self.version}"


def find(uri: str) -> RegisteredVersion:
    """The version that `models:/NAME/VERSION`, `models:/NAME/latest` or `models:/NAME@ALIAS` names now.

    `models:/` may be left out.

    Raises:
        UserError: there is none, or this project did not register it.
        TrackingAwayError: the tracking store does not answer; it is asked once.
    """
    if paths.nothing_tracked():
        raise no_model(uri, "there is no model yet")
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    if not _NAMED.fullmatch(uri):
        raise no_model(uri, "it names no version of a registered model, as NAME/3 or NAME@champion do")
    try:
        address = f"models:/{uri.removeprefix('models:/')}"
        named = get_model_name_and_version(client(), address)  # type: ignore[no-untyped-call]
        found = client().get_model_version(*named)
        model_id, manifest = (found.source or "").removeprefix("models:/"), found.tags.get(store.MODEL_MANIFEST_TAG)
        if not manifest and found.run_id:
            # The run says it later than the version: its process may have died between.
            tags = client().get_run(found.run_id).data.tags
            manifest = tags.get(store.MODEL_MANIFEST_TAG) if tags.get(store.MODEL_TAG) == model_id else None
        if not manifest or found.source != f"models:/{model_id}":
            raise no_model(uri, "this version was not registered by a run of prorec")
        location = client().get_logged_model(model_id).artifact_location
    except Exception as error:
        if is_passing(error):
            # Its address, and what libraries say of it, may hold a password.
            raise TrackingAwayError("The tracking store does not answer.") from error
        if isinstance(error, MlflowException):
            raise no_model(uri, f"there is no model that can be read ({_first_line(error)})") from error
        raise
    return RegisteredVersion(
        name=found.name,
        version=str(found.version),
        model_id=model_id,
        location=location,
        manifest_sha256=manifest,
    )


def no_model(uri: str, problem: str) -> UserError:
    """The mistake of naming a model that is not there: says which there are, and how one gets the alias."""
    newest = {each.name: each.uri for each in reversed(models.versions())}
    known = [newest[name] for name in sorted(newest)]
    cure = f"Known: {', '.join(known)}" if known else "Run `prorec run demo` first"
    name, _, alias = uri.removeprefix("models:/").partition("@")
    if alias == CHAMPION and name in newest:
        cure += f". `prorec promote {newest[name]}` makes it the champion"
    return UserError(problem, place=f"the model {uri}", cure=cure)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def load(version: RegisteredVersion) -> Recommender:
    """Check a version's files and read them.

    Raises:
        UserError: a file is gone or damaged, or another version of this software wrote it.
        TrackingAwayError: the files are elsewhere and the tracking store does not answer.
    """
    from prorec_core.generation.recommender import Recommender
    from prorec_core.serving import BUNDLE

    folder = store.fetch_model(version.location, version.manifest_sha256)
    try:
        return Recommender.load(folder / "artifacts" / BUNDLE)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"this version of prorec cannot read the model ({_first_line(error)})",
            place=version.uri,
            cure="Run its experiment again",
        ) from error


def remember(uri: str, version: RegisteredVersion) -> None:
    """Note what an address named last, for a time when the tracking store is away."""
    write_json(_note(uri), version.model_dump())


def recall(uri: str) -> RegisteredVersion | None:
    """What an address named when it was last served from here, if that is known."""
    try:
        return RegisteredVersion.model_validate_json(_note(uri).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        _log.warning("The note %s cannot be read (%s)", _note(uri), error)
        return None


def _note(uri: str) -> Path:
    return paths.artifacts() / "served" / f"{sha256_json([paths.tracking_uri(), uri])}.json"
