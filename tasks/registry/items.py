"""New and withdrawn items without training: a new version of a model, made from another and from files.

Knows MLflow's registry and files; knows nothing of how items are placed. A version is registered in one call, with its
lineage in it: which files it was made with is known (`changes`), so that whoever is killed does the same again, and
what was done is done once.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec.tasks.execution.events import Notice, StageEnded, StageProgress, StageStarted, emit
from prorec.tasks.execution.prefect_run import PrefectRun
from prorec.tasks.local import paths
from prorec.tasks.local.waiting import so_far
from prorec.tasks.registry import bundles, models, recommenders
from prorec.tasks.registry.changes import Change, Known, looked_at
from prorec.tasks.registry.models import Version
from prorec.tasks.registry.promotion import PROMOTED
from prorec.tasks.registry.recommenders import RegisteredVersion
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.datasets import DataSet
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.tracking.retries import retrying
from prorec_core.artifacts import MANIFEST, ArtifactRef, read_json, write_json, write_manifest
from prorec_core.errors import UserError
from prorec_core.progress import Progress

if TYPE_CHECKING:
    from prorec_core.generation.bundle import Bundle, Placing

NAME = "items"
LINEAGE = "lineage.json"
"""In a bundle: what was done to the model since it was trained, step by step."""
_CARRIED_NOT = (PROMOTED, f"prorec.{NAME}.")
_EXAMPLE = 3


@dataclass(frozen=True)
class How:
    """How changes are made.

    Attributes:
        strict: items that are there already, or not there, are an error; else they are passed over and told, files that
            are in already and were not written again are not looked at, and one that cannot be used spoils none of the
            others.
        encoder: where the model's text encoder is on this machine; None: under the name that the model knows.
        bonus: added to the score of each new item, in nats.
        device: where texts are embedded.
    """

    strict: bool = True
    encoder: str | None = None
    bonus: float = 0.0
    device: str = "auto"


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        base: the version that the changes were made to, as people name it.
        uri: the version with them; the base's where nothing was to be done.
        added, withdrawn, back: how many items came, went, and came back after they had been withdrawn.
        refused: files that could not be used, with the reason, where the others were.
        run_id: the MLflow run; "" where nothing was to be done.
    """

    base: str
    uri: str
    added: int = 0
    withdrawn: int = 0
    back: int = 0
    refused: tuple[str, ...] = ()
    run_id: str = ""

    def over(self, asked: str) -> str | None:
        """The champion whose place a version that was made from it may take; None where no champion was asked for."""
        return self.base if asked.endswith(f"@{recommenders.CHAMPION}") else None

    @property
    def changed(self) -> bool:
        """Whether there is a version with changes."""
        return bool(self.added or self.withdrawn or self.back)


def update(model: str, changes: Sequence[Change], how: How) -> Outcome:
    """Make the next version of a model: with new items, without withdrawn ones.

    The version carries the evaluation of the one that it was made from, marked as such. The same changes to the same
    version are one version, however often they are asked for.

    Args:
        model: models:/NAME/VERSION or models:/NAME@ALIAS.
        changes: files, in the order in which they take effect; unless it is done strictly, those that the version was
            made with are passed over, and so are those that leave the model as it is when all are done.
        how: strictly or not, where the encoder is, with which bonus.

    Raises:
        UserError: no such model, a file that cannot be used, the model or the encoder does not allow it.
    """
    from prorec_core.generation.arrivals import ChangingError

    begun = time.monotonic()
    emit(StageStarted(NAME))
    name = recommenders.find(model).name
    with paths.lock(
        f"{NAME}-{name}",
        lambda seconds: _notice(f"another process changes the items of {name}; waiting{so_far(seconds)}"),
    ):
        # The alias may have moved while the other was at work.
        found = recommenders.find(model)
        base = models.find(found.name, found.version)
        assert base is not None
        work = _Work(base, _folder(found), how)
        refused = []
        for change in changes:
            if not how.strict and work.known.has(change):
                continue
            try:
                work.make(change)
            except UserError as error:
                if how.strict:
                    raise
                _notice(str(error))
                # One that is being written is for the next time.
                if not isinstance(error, ChangingError):
                    refused.append(str(error))
        if not work.changed:
            for name, value in (work.idle | work.undone).items():
                retrying(client().set_model_version_tag, base.name, str(base.number), name, value)
            return Outcome(base.title, base.uri, refused=tuple(refused))
        return _register(work, Outcome(base.title, base.uri, *work.counts, tuple(refused)), begun)


class _Work:
    """A bundle at work: what it is after the changes so far."""

    def __init__(self, base: Version, folder: Path, how: How) -> None:
        from prorec_core.generation.bundle import Bundle

        self.base, self.folder, self.how = base, folder, how
        self.bundle: Bundle = Bundle.load(folder)
        self.first = self.bundle
        self.before: list[dict[str, Any]] = read_json(folder / LINEAGE) if (folder / LINEAGE).is_file() else []
        self.steps: list[dict[str, Any]] = []
        self.known = Known(self.before, base.tags)
        # Tags of the files that changed nothing, and of those that others may have undone.
        self.idle, self.undone = dict[str, str](), dict[str, str]()
        self.ids: dict[str, list[str]] = {"added": [], "withdrawn": [], "back": []}
        self.data_sets: list[DataSet] = []
        self._placing: Placing | None = None

    @property
    def changed(self) -> bool:
        """Whether the model is another; of steps that undid each other nothing is left."""
        after, before = self.bundle, self.first
        kept = (after.attributes, before.attributes)
        return (
            after.items.height != before.items.height
            or bool((after.catalogue.withdrawn != before.catalogue.withdrawn).any())
            or not (kept[0] is None or kept[1] is None or kept[0].equals(kept[1]))
        )

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.ids["added"]), len(self.ids["withdrawn"]), len(self.ids["back"])

    @property
    def placing(self) -> Placing:
        from prorec_core.generation.bundle import Placing

        if self._placing is None:
            self._placing = Placing.load(self.folder, self.base.title)
        return self._placing

    def make(self, change: Change) -> None:
        """Make a change.

        Raises:
            UserError: it cannot be made; nothing is changed then.
        """
        done = self._add(change) if change.kind == "add" else self._remove(change)
        self.known.note(change)
        if not any(done.values()):
            self.idle |= looked_at(change)
            return
        self.undone |= looked_at(change)
        for kind, ids in done.items():
            self.ids[kind] += ids
        self.steps.append(
            {
                "from": self.base.title,
                "from_content": self.base.tags.get(models.CONTENT_TAG, ""),
                "did": change.kind,
                "file": change.file.name,
                "sha256": change.sha256,
                "written": change.written,
                **{kind: len(ids) for kind, ids in done.items() if ids},
            }
        )
        self.data_sets.append(DataSet(change.file.name, change.sha256, str(change.file.absolute()), {}, None))

    def _add(self, change: Change) -> dict[str, list[str]]:
        import polars as pl

        from prorec_core.generation.additions import add_items, bring_back, named
        from prorec_core.generation.arrivals import expect_own_forms, read_arrivals
        from prorec_core.text.placing import semantic_vectors

        placing, bundle, place = self.placing, self.bundle, str(change.file)
        found = read_arrivals(placing.data, placing.text, change.file, change.sha256, bundle.attributes)
        for text in found.remarks:
            _notice(text)
        known = pl.Series(bundle.codes.item_ids, dtype=pl.String)
        gone = known.filter(pl.Series(bundle.catalogue.withdrawn))
        there = known.filter(~pl.Series(bundle.catalogue.withdrawn))
        ids = found.items["item_id"]
        old = ids.filter(ids.is_in(there.implode())).to_list()
        if old and self.how.strict:
            raise UserError(f"{named(old)} in the model already", place=place, cure="Leave out what is there")
        if old:
            _notice(f"{place}: {len(old):,} of {ids.len():,} items are in the model already and passed over")
        back = ids.filter(ids.is_in(gone.implode())).to_list()
        if back:
            _notice(f"{place}: {named(back)} back with the embedding, codes and title from before the withdrawal")
            bundle = bring_back(bundle, back, found.only(back).attributes)
        new = found.without(known)
        if new.items.height:
            expect_own_forms(new.items["item_id"], known, placing.data, place)
            encoder = {} if self.how.encoder is None else {"model": self.how.encoder}
            item_ids, texts = new.items["item_id"].to_list(), new.items["text"].to_list()
            width = placing.texts.shape[1]
            vectors = semantic_vectors(
                placing.text.model_copy(update=encoder),
                placing.encoder,
                (item_ids, texts),
                width,
                new.vectors,
                self.how.device,
                _report,
                place,
            )
            bundle = add_items(bundle, placing, new.items, vectors, self.how.bonus, new.attributes)
        self.bundle = bundle
        return {"added": new.items["item_id"].to_list(), "back": back}

    def _remove(self, change: Change) -> dict[str, list[str]]:
        from prorec_core.config_data import DataConfig
        from prorec_core.data.id_lists import LINES
        from prorec_core.generation.additions import withdraw_items
        from prorec_core.generation.arrivals import read_ids
        from prorec_core.generation.bundle import PLACING

        # A model that cannot place new items can lose items all the same.
        reads = self.placing.data if (self.folder / PLACING).is_file() else DataConfig(source="tables")
        if change.file.suffix.lower() not in LINES and not (self.folder / PLACING).is_file():
            _notice(f"{self.base.title} does not say how its items are read: ids are looked for in 'item_id'")
        ids = read_ids(reads, change.file, change.sha256)
        if not self.how.strict:
            catalogue = self.bundle.catalogue
            left = {
                item for item, gone in zip(self.bundle.codes.item_ids, catalogue.withdrawn, strict=True) if not gone
            }
            if passed := len(ids) - len(ids := [item for item in ids if item in left]):
                _notice(f"{change.file}: {passed:,} items are not in the model, or withdrawn, and passed over")
            if not ids:
                return {"withdrawn": []}
        self.bundle = withdraw_items(self.bundle, ids, str(change.file))
        return {"withdrawn": ids}


def _register(work: _Work, outcome: Outcome, begun: float) -> Outcome:
    base = work.base
    experiment = mlflow_runs.experiment_id(base.name.removeprefix(mlflow_runs.experiment_name("")))
    run = TrackedRun.start(experiment, f"{NAME} · {base.title}", tags={"prorec.kind": NAME, **PrefectRun.here().tags})
    try:
        for data in work.data_sets:
            run.data_set(data)
        run.parameters({"model": base.uri, **vars(work.how)})
        ref = _artifact(work, run)
        tags = _carried(base) | models.stage_tags({NAME: ref}) | {f"prorec.{NAME}.did": _told(outcome)} | work.idle
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bundle"
            work.bundle.save(folder)
            write_json(folder / LINEAGE, [*work.before, *work.steps])
            example = _try(folder)
            # When a file was written makes no other model of it.
            steps = [{name: value for name, value in step.items() if name != "written"} for step in work.steps]
            made = {"from": base.title, "from_content": base.tags.get(models.CONTENT_TAG, ""), "steps": steps}
            found = bundles.publish(base.name, run.id, folder, example, made=made, tags=tags, note=_note(base, outcome))
        uri = found[store.MODEL_URI_TAG]
        run.metrics({"added": outcome.added, "withdrawn": outcome.withdrawn, "seconds": time.monotonic() - begun})
        run.tags({**found, models.MODEL_OF_RUN_TAG: uri, models.MADE_FROM_TAG: base.uri})
    except BaseException as error:
        run.finish(*mlflow_runs.how_it_ended(error))
        raise
    run.finish()
    emit(StageEnded(ref, False, time.monotonic() - begun))
    return Outcome(outcome.base, uri, outcome.added, outcome.withdrawn, outcome.back, outcome.refused, run_id=run.id)


def _artifact(work: _Work, run: TrackedRun) -> ArtifactRef:
    """Store what was done, with the ids, as the run's artifact."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_json(folder / LINEAGE, work.steps)
        write_json(folder / "items.json", work.ids)
        manifest = write_manifest(folder, NAME, {"model": work.base.title}, {})
        run.upload(folder, last=MANIFEST)
        run.tags({store.STAGE_TAG: NAME, **store.tags_of(run.artifact_uri, folder, manifest)})
    return ArtifactRef(stage=NAME, digest=manifest.digest, run_id=run.id, uri=run.artifact_uri)


def _try(folder: Path) -> list[str]:
    """Have the model recommend once before it is registered; gives the item ids of a short history."""
    from prorec_core.generation.recommender import Recommender

    recommender = Recommender.load(folder)
    example = [item for item in recommender.item_ids if item not in recommender.withdrawn][:_EXAMPLE]
    recommender.recommend([example, []])
    return example


def _folder(found: RegisteredVersion) -> Path:
    from prorec_core.serving import BUNDLE

    return store.fetch_model(found.location, found.manifest_sha256) / "artifacts" / BUNDLE


def _carried(base: Version) -> dict[str, str]:
    """What a version made from another says of itself: the other's evaluation, marked as such."""
    own = {models.CONTENT_TAG, store.MODEL_MANIFEST_TAG, models.MADE_FROM_TAG}
    kept = {name: value for name, value in base.tags.items() if name not in own and not name.startswith(_CARRIED_NOT)}
    return {models.EVALUATION_OF_TAG: base.title, **kept, models.MADE_FROM_TAG: base.title}


def _told(outcome: Outcome) -> str:
    """What was done, in words."""
    parts = {"added": outcome.added, "withdrawn": outcome.withdrawn, "back": outcome.back}
    return ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)


def _note(base: Version, outcome: Outcome) -> str:
    evaluated = base.tags.get(models.EVALUATION_OF_TAG, base.title)
    return "\n\n".join(
        [
            f"Made from {base.title} without training: items {_told(outcome)}.",
            f"What is said of its quality was measured of {evaluated}.",
        ]
    )


def _report(progress: Progress) -> None:
    emit(StageProgress(NAME, progress))


def _notice(text: str) -> None:
    emit(Notice(f"{NAME}: {text}"))
