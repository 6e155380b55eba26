"""The model that a training goes on from: found, held against the data, and its artifacts read.

Knows the experiment's `start_from`, versions and what their tags name; knows nothing of training. What is read are the
artifacts that the version was made of, and the codes of the version itself, which may have items that were added since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec.tasks.execution.events import Notice, emit
from prorec.tasks.registry import models, promotion, recommenders
from prorec.tasks.registry.models import Version
from prorec.tasks.registry.seen import seen_in_line
from prorec.tasks.tracking import mlflow_runs, store
from prorec_core.artifacts import MANIFEST, read_json, sha256_json
from prorec_core.config import Experiment
from prorec_core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from prorec_core.data.dataset import Dataset
    from prorec_core.data.seen import Seen
    from prorec_core.data.sequences import Split
    from prorec_core.generation.bundle import Bundle
    from prorec_core.quantization.quantized import CodeTable

READ = ("preprocess", "embed_text", "train_collaborative", "align", "quantize", "train_generator")
"""The stages whose artifacts a start is made of."""


@dataclass(frozen=True)
class Base:
    """A version that is gone on from."""

    version: Version

    def artifact(self, stage: str) -> Path:
        """A local folder with the artifact of a stage that it was made of.

        Raises:
            UserError: it is not known, or gone.
        """
        ref = self.version.artifact(stage)
        if ref is None:
            raise UserError(
                f"the artifact of '{stage}' that it was made of is not known",
                place=f"start_from {self.version.uri}",
                cure="Name a version that a run of an experiment made",
            )
        return store.fetch(ref)

    @cached_property
    def dataset(self) -> Dataset:
        """The data that it was trained on."""
        from prorec_core.data.dataset import Dataset

        return Dataset.load(self.artifact("preprocess"))

    @cached_property
    def bundle(self) -> Bundle:
        """Its files."""
        from prorec_core.generation.bundle import Bundle
        from prorec_core.serving import BUNDLE

        found = recommenders.find(self.version.uri)
        return Bundle.load(store.fetch_model(found.location, found.manifest_sha256) / "artifacts" / BUNDLE)

    def rows(self, dataset: Dataset) -> npt.NDArray[np.int64]:
        """Where each item of other data stands in its tables, -1 for those that it lacks, int64."""
        import numpy as np

        row_of = {item: row for row, item in enumerate(self.dataset.items["item_id"])}
        return np.array([row_of.get(item, -1) for item in dataset.items["item_id"]], np.int64)

    @property
    def codes(self) -> CodeTable:
        """The code table of the version."""
        return self.bundle.codes

    def seen_of(self, dataset: Dataset, *, validation: bool) -> Mapping[Split, Seen]:
        """The few targets that it was trained on, of what is now to be measured or, where that is asked, chosen by.

        Looks at all versions that one was gone on from before the other, and tells where they are not there any more.

        Raises:
            UserError: they are not few: says how many, and names one; or what it knows cannot be told from these data.
        """
        from prorec_core.data.sequences import Split

        place, splits = (
            f"start_from {self.version.uri}",
            (Split.VALIDATION, Split.TEST) if validation else (Split.TEST,),
        )
        try:
            found = seen_in_line(self.version, dataset, splits, lambda text: emit(Notice(f"start_from: {text}")))
        except UserError as error:
            raise UserError(error.problem, place=place, cure=error.cure) from error
        if many := [each.told for each in found.values() if not each.few]:
            raise UserError(
                many[0],
                place=place,
                cure="Start from a version that was trained before them, or train anew",
            )
        return found

    def expect_encoder(self, embedded: Path) -> None:
        """Refuse texts that were embedded otherwise than its own.

        Raises:
            UserError: the encoders differ.
        """
        if _encoder(self.artifact("embed_text")) != _encoder(embedded):
            raise UserError(
                "its texts were embedded by another encoder, or otherwise, than these",
                place=f"start_from {self.version.uri}",
                cure="Give the section text the values that it was trained with, or train anew",
            )


def base_of(experiment: Experiment) -> Base | None:
    """The version that an experiment goes on from; None where it begins anew.

    Raises:
        UserError: there is none of this name.
    """
    return None if experiment.start_from is None else Base(models.named(experiment.start_from))


def start_digest(experiment: Experiment) -> str:
    """What tells the version that is gone on from from any other, whatever its name; nothing where there is none.

    Raises:
        UserError: there is none of this name, or it is not known what it was made of.
    """
    base = base_of(experiment)
    if base is None:
        return ""
    tags = base.version.tags
    made_of = {stage: tags.get(models.digest_tag(stage), "") for stage in READ}
    if missing := [stage for stage, digest in made_of.items() if not digest]:
        base.artifact(missing[0])
    # What else a start reads of it, its items and their codes, is in its files.
    files = tags.get(models.CONTENT_TAG) or tags.get(store.MODEL_MANIFEST_TAG, "")
    return sha256_json([files, made_of])


def _encoder(folder: Path) -> list[Any]:
    """What E_S is made by, without what changes whenever an item comes: files of vectors, means and scales."""
    config: dict[str, Any] = read_json(folder / MANIFEST)["config"]["text"]
    encoder: dict[str, Any] = read_json(folder / "encoder.json")
    sources = [(each["name"], each["width"]) for each in encoder.get("sources", ())]
    own = {name: value for name, value in config.items() if name not in {"model", "vectors"}}
    return [own, sources, None if config["encoder"] == "vectors" else encoder["digest"]]


def pinned(experiment: Experiment, run_tags: Mapping[str, str]) -> Experiment:
    """The experiment with its start as the version that it names now, whatever becomes of an alias later.

    Where the flow run was tried before, the version that it started from then.

    Args:
        experiment: as it was given.
        run_tags: those that tell the flow run (`PrefectRun.tags`).

    Raises:
        UserError: there is no such version.
    """
    if experiment.start_from is None:
        return experiment
    flow_run = run_tags.get(mlflow_runs.FLOW_RUN_TAG)
    if flow_run:
        for run in mlflow_runs.search(f"tags.`{mlflow_runs.FLOW_RUN_TAG}` = '{flow_run}'"):
            for name in ("start_from", "experiment.start_from"):
                if found := run.data.params.get(name):
                    return experiment.model_copy(update={"start_from": found})
    return experiment.model_copy(update={"start_from": promotion.version_named(experiment.start_from).uri})
