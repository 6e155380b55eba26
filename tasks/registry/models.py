"""Registered versions of generators: what they carry, and how one is found again.

Knows MLflow's registry, runs and refs. Knows nothing of how versions are compared, or of what they recommend.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prorec.tasks.local import paths
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import HEADLINE, TrackedRun, client
from prorec.tasks.tracking.retries import paged, retrying
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment
from prorec_core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CONTENT_TAG = "prorec.content_sha256"
"""On a version: hash of all that makes it recommend what it does."""

EXPERIMENT_TAG, SEED_TAG, RUN_TAG = "prorec.experiment", "prorec.seed", "prorec.run_id"
SOURCE_TAG = "prorec.data.source"
SCORER_TAG = "prorec.scorer"
"""On a version: the scorer by which it recommends."""

VALIDATION_TAG = "prorec.trained_on_validation"
"""On a version that was trained on the validation items too."""

MADE_FROM_TAG, EVALUATION_OF_TAG = "prorec.made_from", "prorec.evaluation_of"
"""On a version made without training: the version that it was made from, and the one whose evaluation it carries."""

STARTED_FROM_TAG = "prorec.started_from"
"""On a version: the one that its training went on from, as `models:/NAME/NUMBER`; none where it began anew."""

MODEL_OF_RUN_TAG = "prorec.model"
"""On the run of an experiment: the version that it made or found cached."""

_SPLITS = ("test", "validation")
_NOT_COMPARABLE = "Trained on the validation items too: its test figures are not comparable with others'."
_PREFIX = mlflow_runs.experiment_name("")
_ARTIFACT_TAG = re.compile(r"prorec\.(.+)\.(run_id|digest)")


def digest_tag(stage: str) -> str:
    """The tag, of a version or of the run of an experiment, with the digest of a stage's artifact."""
    return f"prorec.{stage}.digest"


def run_tag(stage: str) -> str:
    """The tag with the MLflow run that made it."""
    return f"prorec.{stage}.run_id"


def stage_tags(refs: Mapping[str, ArtifactRef]) -> dict[str, str]:
    """Tags that name the artifacts of some stages."""
    return {
        **{run_tag(name): ref.run_id for name, ref in refs.items()},
        **{digest_tag(name): ref.digest for name, ref in refs.items()},
    }


def named_by(tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The artifacts that such tags name: `run_id` and `digest`, by stage or "stage.side"."""
    found: dict[str, dict[str, str]] = {}
    for tag, value in tags.items():
        if match := _ARTIFACT_TAG.fullmatch(tag):
            found.setdefault(match[1], {})[match[2]] = value
    return found


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `created` is in seconds since 1970."""

    name: str
    number: int
    source: str
    run_id: str
    created: float
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    @property
    def title(self) -> str:
        """How people name it: prorec-demo/3."""
        return f"{self.name}/{self.number}"

    @property
    def uri(self) -> str:
        """How MLflow names it."""
        return f"models:/{self.title}"

    @property
    def model_id(self) -> str:
        """The logged model behind it."""
        return self.source.removeprefix("models:/")

    def artifact(self, stage: str) -> ArtifactRef | None:
        """The artifact of a stage that it was made or measured with, if that is known."""
        run_id = self.tags.get(run_tag(stage))
        return ref_of_run(run_id) if run_id else None


def ref_of_run(run_id: str) -> ArtifactRef | None:
    """The artifact that a stage's MLflow run stored, if the run is there and stored one."""
    from mlflow.exceptions import MlflowException

    try:
        tags = retrying(client().get_run, run_id).data.tags
    except MlflowException:
        return None
    if store.DIGEST_TAG not in tags:
        return None
    return ArtifactRef(
        stage=tags[store.STAGE_TAG], digest=tags[store.DIGEST_TAG], run_id=run_id, uri=tags[store.URI_TAG]
    )


def versions(name: str | None = None) -> list[Version]:
    """All versions of this project's registered models, or of one of them, newest first by model."""
    if paths.nothing_tracked() or (name and "'" in name):
        # MLflow's conditions know no way to quote that sign, and no experiment has it.
        return []
    aliases: dict[tuple[str, int], list[str]] = {}
    for model in paged(client().search_registered_models):
        for alias, number in model.aliases.items():
            aliases.setdefault((model.name, int(number)), []).append(alias)
    condition = f"name = '{name}'" if name else f"name LIKE '{_PREFIX}%'"
    found = [
        _version(each, aliases.get((each.name, int(each.version)), ()))
        for each in paged(client().search_model_versions, filter_string=condition)
    ]
    return sorted(found, key=lambda version: (version.name, -version.number))


def copied_from(gone: Collection[str] = (), run_id: str | None = None) -> set[str]:
    """The runs that versions name which were copied from others, under whatever name, and so name no logged model.

    Args:
        gone: titles of versions that do not count.
        run_id: ask for this one alone.
    """
    if paths.nothing_tracked():
        return set()
    condition = None if run_id is None else f"run_id = '{run_id}'"
    found = map(_version, paged(client().search_model_versions, filter_string=condition))
    return {each.run_id for each in found if "/" in each.model_id and each.title not in gone}


def _version(found: ModelVersion, aliases: Any = None) -> Version:
    return Version(
        name=found.name,
        number=int(found.version),
        source=found.source or "",
        run_id=found.run_id or "",
        created=found.creation_timestamp / 1000,
        aliases=tuple(sorted(found.aliases if aliases is None else aliases)),
        tags=dict(found.tags),
    )


def find(name: str, number: str) -> Version | None:
    """A version by its number, or None where there is no such version."""
    return _found(client().get_model_version, name, number)


def holder(name: str, alias: str) -> Version | None:
    """The version that has an alias, or None."""
    return _found(client().get_model_version_by_alias, name, alias)


def _found(call: Any, *words: str) -> Version | None:
    from mlflow.exceptions import MlflowException

    try:
        return _version(retrying(call, *words))
    except MlflowException as error:
        # Where there is no such alias, MLflow says that the parameter's value is invalid.
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise


def named(text: str) -> Version:
    """The version that `models:/NAME/3`, `NAME/3` or `NAME@ALIAS` names.

    Raises:
        UserError: there is none; says which there are.
    """
    name, slash, number = text.removeprefix("models:/").partition("/")
    name, _, alias = (name, "", "") if slash else name.partition("@")
    if not paths.nothing_tracked():
        version = find(name, number) if slash else holder(name, alias)
        if version:
            return version
    raise UserError("there is no such version of a model", place=text, cure=known_versions(name))


def known_versions(name: str = "") -> str:
    """The cure for a version that does not exist: the versions of the model, or all."""
    found = versions()
    if not found:
        return "Run `prorec run demo` first"
    names = {version.name for version in found}
    if name and name not in names:
        return did_you_mean(name, sorted(names))
    known = [version.title for version in found if version.name == name or not name]
    return f"Known: {', '.join(known[:10])}{' …' if len(known) > 10 else ''}"


def of_content(name: str, content: str) -> Version | None:
    """The newest version with this content whose files are whole, so that the same is not registered twice."""
    condition = f"name = '{name}' and tags.`{CONTENT_TAG}` = '{content}'"
    same = [_version(each) for each in paged(client().search_model_versions, filter_string=condition)]
    for version in sorted(same, key=lambda version: -version.number):
        manifest = version.tags.get(store.MODEL_MANIFEST_TAG)
        if manifest and not store.check_model(version.model_id, manifest):
            return version
    return None


def register(name: str, model_id: str, run_id: str, tags: Mapping[str, str], note: str | None = None) -> str:
    """Make a logged model the newest version of a registered model, described by a note; returns its URI."""
    import mlflow
    from mlflow.exceptions import MlflowException

    # The registry looks for the logged model where the process as a whole says, whatever client asks it.
    mlflow.set_tracking_uri(paths.tracking_uri())
    try:
        retrying(client().create_registered_model, name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = retrying(
        client().create_model_version,
        name,
        f"models:/{model_id}",
        run_id=run_id,
        tags=dict(tags),
        description=note,
        model_id=model_id,
    )
    return f"models:/{name}/{version.version}"


def version_of(generator: ArtifactRef) -> str | None:
    """The URI of the version made with a generator; one that was deleted since is registered again.

    None where the artifact was made without a model.
    """
    tags = retrying(client().get_run, generator.run_id).data.tags
    uri = tags.get(store.MODEL_URI_TAG)
    if not uri:
        return None
    name, _, number = uri.removeprefix("models:/").partition("/")
    found = find(name, number)
    # Numbers begin anew where a whole registered model was deleted: it may be another generator's.
    if found and found.model_id == tags[store.MODEL_TAG]:
        return uri
    again = register(name, tags[store.MODEL_TAG], generator.run_id, _manifest_tag(tags))
    retrying(client().set_tag, generator.run_id, store.MODEL_URI_TAG, again)
    return again


def _manifest_tag(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: tags[name] for name in (store.MODEL_MANIFEST_TAG, CONTENT_TAG) if name in tags}


def note_evaluation(
    experiment: Experiment,
    uri: str | None,
    refs: Mapping[str, ArtifactRef],
    run: TrackedRun,
    metrics: Mapping[str, Any],
    variant: str | None = None,
) -> None:
    """Log what was measured, and write onto the version how good it is, with which data it was made, and by which run.

    A version whose artifacts came from the cache keeps what it carries; only links to runs are renewed.

    Args:
        experiment: the experiment that was run.
        uri: the version, None where there is none.
        refs: the artifact of each stage.
        run: the run of the experiment.
        metrics: the content of metrics.json.
        variant: its name, where a comparison measured it.
    """
    from prorec_core.metrics.table import columns

    name, _, number = (uri or "").removeprefix("models:/").partition("/")
    version = find(name, number) if uri else None
    new = version is not None and version.tags.get(digest_tag("evaluate")) != refs["evaluate"].digest
    scorer = served_scorer(metrics)
    _log(run.id, metrics, scorer, version.model_id if version and new else None)
    run.tags({SCORER_TAG: scorer})
    if version is None:
        return
    run.model(version.model_id)
    wanted = stage_tags(refs)
    if new:
        wanted |= {
            EXPERIMENT_TAG: experiment.name,
            SEED_TAG: str(experiment.seed),
            RUN_TAG: run.id,
            SOURCE_TAG: _source_digest(refs["preprocess"]),
            SCORER_TAG: scorer,
            **({mlflow_runs.VARIANT_TAG: variant} if variant else {}),
            **({STARTED_FROM_TAG: experiment.start_from} if experiment.start_from else {}),
            **({VALIDATION_TAG: "true"} if _trained_on_validation(metrics) else {}),
            **{
                f"{split}.{metric}": f"{metrics[split][scorer][metric]:.6f}"
                for split in _splits(metrics)
                for metric in columns("headline")
                if metric in metrics.get(split, {}).get(scorer, {})
            },
        }
        text = _description(experiment, run, metrics, scorer)
        retrying(client().update_model_version, name, number, text)
    for tag, value in wanted.items():
        if version.tags.get(tag) != value:
            retrying(client().set_model_version_tag, name, number, tag, value)


def served_scorer(metrics: Mapping[str, Any]) -> str:
    """The scorer by which a generator that was measured so recommends: as the `Recommender` chooses."""
    if "recommended" in metrics:
        return str(metrics["recommended"])
    # Measured before there was a ranker.
    return "generative" if metrics["fusion_weight"] is None else "fused"


def _trained_on_validation(metrics: Mapping[str, Any]) -> bool:
    return bool(metrics.get("protocol", {}).get("trained_on_validation"))


def _splits(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """The splits that say something: not the validation items where they were trained on."""
    return ("test",) if _trained_on_validation(metrics) else _SPLITS


def _log(run_id: str, metrics: Mapping[str, Any], scorer: str, model_id: str | None) -> None:
    """Log test and validation metrics on a run, what this scorer reached first, and on the logged model if any."""
    from mlflow.entities import Metric

    from prorec.tasks.tracking.metrics import numbers

    now = int(time.time() * 1000)
    best = metrics["test"][scorer]
    values = {shown: best[name] for name, shown in HEADLINE.items() if name in best}
    values |= numbers({part: metrics[part] for part in (*_splits(metrics), "new_items") if part in metrics})
    entries = [Metric(name, value, now, 0, model_id=model_id) for name, value in values.items()]
    retrying(client().log_batch, run_id, metrics=entries)


def _source_digest(preprocess: ArtifactRef) -> str:
    """Digest of the data as they came, as the run of `preprocess` noted it; "" where it did not."""
    run: Run = retrying(client().get_run, preprocess.run_id)
    found = run.inputs.dataset_inputs if run.inputs else []
    return next((str(each.dataset.digest) for each in found if each.dataset.name.endswith("/source")), "")


def _description(experiment: Experiment, run: TrackedRun, metrics: Mapping[str, Any], scorer: str) -> str:
    from prorec_core.metrics import scorers
    from prorec_core.metrics.table import columns, figure, label

    page = mlflow_runs.page(run.experiment, run.id) or mlflow_runs.path_of_page(run.experiment, run.id)
    shown = columns("headline")
    rows = [
        f"| {split} | {scorers.label(name)}{' (served)' if name == scorer else ''} | "
        + " | ".join(figure(metric, values[metric]) if metric in values else "" for metric in shown)
        + " |"
        for split in _splits(metrics)
        for name, values in metrics.get(split, {}).items()
    ]
    return "\n".join(
        [
            f"Experiment {experiment.name}, seed {experiment.seed}, made by [run {run.id}]({page}).",
            *([_NOT_COMPARABLE] if _trained_on_validation(metrics) else []),
            "",
            f"| split | scorer | {' | '.join(map(label, shown))} |",
            f"| --- | --- |{' ---: |' * len(shown)}",
            *rows,
        ]
    )
