"""Which stored artifacts are still of use, and to whom: registered versions, recent runs, and what those were made of.

Knows runs, versions, manifests and their upstream digests. Deletes nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prorec.tasks.local import paths
from prorec.tasks.registry import models
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import ARTIFACT_FOLDER, client
from prorec.tasks.tracking.retries import retrying
from prorec.tasks.tracking.store import is_active, is_stored
from prorec.tasks.upkeep.old_versions import gone_on_from, in_passing, line_of, outdated, parents_of
from prorec_core.artifacts import MANIFEST, ArtifactRef, Manifest

if TYPE_CHECKING:
    from mlflow.entities import Run

DAY = 86400.0
_AT_ONCE = 8


@dataclass(frozen=True)
class Stored:
    """An artifact in the store.

    Attributes:
        ref: what it is and where.
        experiment: name of the experiment that made it.
        parent: the run of that experiment.
        ended: when it was finished, seconds since 1970.
        manifest: its description, None where that cannot be read.
        model_id: the logged model that was registered with it, if any.
    """

    ref: ArtifactRef
    experiment: str
    parent: str
    ended: float
    manifest: Manifest | None
    model_id: str | None

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(entry.bytes for entry in self.manifest.files) if self.manifest else 0


@dataclass
class Inventory:
    """The store at one moment.

    Attributes:
        stored: the artifacts, newest first; neither those found damaged and made again nor deleted ones.
        runs: all runs of this project's experiments.
        versions: the registered versions that stay.
        outdated: those that are to go, as `old_versions.outdated` has it; none unless it was said how many stay.
        keep_versions: how many of the newest stay, of each model; None where all do.
        since: runs that ended later keep what they read and made, seconds since 1970.
        keepers: what keeps an artifact: phrases, by the run that made it.
    """

    stored: list[Stored]
    runs: list[Run]
    versions: list[models.Version]
    since: float = 0.0
    outdated: list[models.Version] = field(default_factory=list)
    keep_versions: int | None = None
    keepers: Mapping[str, list[str]] = field(default_factory=dict)

    def kept_by(self, artifact: Stored) -> list[str]:
        """What keeps an artifact; empty where nothing does. Of equal ones that nothing names, the newest is kept."""
        return list(self.keepers.get(artifact.ref.run_id, ()))


def take_inventory(keep_days: float, keep_versions: int | None = None) -> Inventory:
    """Look at all runs, versions and manifests.

    Args:
        keep_days: what runs of the last `keep_days` days read or made is of use.
        keep_versions: how many of a model's newest versions stay, beside those that are needed; None: all do.
    """
    if paths.nothing_tracked():
        return Inventory([], [], [])
    runs = list(mlflow_runs.search())
    names = mlflow_runs.experiments()
    made = [run for run in runs if is_stored(run)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        stored = list(pool.map(lambda run: _stored(run, names), made))
    stored.sort(key=lambda artifact: -artifact.ended)
    versions, since = models.versions(), time.time() - keep_days * DAY
    old = [] if keep_versions is None else outdated(versions, runs, keep_versions, since)
    gone = {each.title for each in old}
    kept = [each for each in versions if each.title not in gone]
    inventory = Inventory(stored, runs, kept, since, old, keep_versions)
    inventory.keepers = _keepers(inventory)
    return inventory


def kept_now(inventory: Inventory) -> set[str]:
    """The runs of those artifacts that versions and runs as they are now keep, whatever was so before."""
    return set(_keepers(Inventory(inventory.stored, list(mlflow_runs.search()), models.versions(), inventory.since)))


def _stored(run: Run, names: Mapping[str, str]) -> Stored:
    tags = run.data.tags
    ref = ArtifactRef(
        stage=tags[store.STAGE_TAG], digest=tags[store.DIGEST_TAG], run_id=run.info.run_id, uri=tags[store.URI_TAG]
    )
    parent = tags.get(mlflow_runs.PARENT_TAG, "")
    ended = (run.info.end_time or run.info.start_time) / 1000
    experiment = names.get(run.info.experiment_id, "")
    return Stored(ref, experiment, parent, ended, _manifest(ref), tags.get(store.MODEL_TAG))


def _manifest(ref: ArtifactRef) -> Manifest | None:
    from mlflow.exceptions import MlflowException

    folder = paths.local_path(ref.uri)
    try:
        if folder is not None:
            return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        with tempfile.TemporaryDirectory() as scratch:
            path = retrying(client().download_artifacts, ref.run_id, f"{ARTIFACT_FOLDER}/{MANIFEST}", scratch)
            return Manifest.model_validate_json(Path(path).read_bytes())
    except (OSError, ValueError, MlflowException):
        return None


def _keepers(inventory: Inventory) -> dict[str, list[str]]:
    graph = _Graph(inventory)
    roots = list(_roots(inventory, graph))
    graph.prefer({run_id for _, run_ids in roots for run_id in run_ids})
    found: dict[str, list[str]] = {}
    for phrase, run_ids in roots:
        for run_id in graph.closure(run_ids):
            kept = found.setdefault(run_id, [])
            if phrase not in kept:
                kept.append(phrase)
    return found


def _roots(inventory: Inventory, graph: _Graph) -> Iterator[tuple[str, list[str]]]:
    """What keeps artifacts, and the runs that made those that it keeps itself."""
    for version in _of_use(inventory):
        name = version.title + "".join(f" @{alias}" for alias in version.aliases)
        yield name, graph.named(version.tags) or graph.made_by(version.run_id)
    active = {run.info.run_id for run in inventory.runs if is_active(run)}
    parents = parents_of(inventory.runs)
    for run in inventory.runs:
        line = line_of(run.info.run_id, parents)
        of_use = [*graph.made_by(run.info.run_id), *graph.named(run.data.tags)]
        if running := [each for each in line if each in active]:
            yield f"running {running[-1]}", of_use
        elif max(run.info.start_time, run.info.end_time or 0) / 1000 >= inventory.since:
            yield f"run {line[1] if len(line) > 1 else line[0]}", of_use


def _of_use(inventory: Inventory) -> Iterator[models.Version]:
    """All versions but those that a comparison made in passing: without an alias, and nobody goes on from them."""
    passing = in_passing(inventory.versions, inventory.runs) - gone_on_from(inventory.versions, inventory.runs)
    return (each for each in inventory.versions if each.aliases or each.title not in passing)


def read_by(runs: Iterable[Run], inventory: Inventory) -> list[Stored]:
    """What runs have read and made so far, and all that this was made of."""
    graph = _Graph(inventory)
    graph.prefer(set(inventory.keepers))
    run_ids = graph.closure([run_id for run in runs for run_id in graph.named(run.data.tags)])
    return [artifact for artifact in inventory.stored if artifact.ref.run_id in run_ids]


class _Graph:
    """Which stored artifact was made of which. Manifests name digests, and several runs may have made a digest."""

    def __init__(self, inventory: Inventory) -> None:
        self._stored = {artifact.ref.run_id: artifact for artifact in inventory.stored}
        self._of_digest: dict[str, str] = {}
        self.prefer(set())

    def prefer(self, run_ids: set[str]) -> None:
        """Take, for a digest, what one of these runs made where there is a choice, else what is newest."""
        # Newest first, so that what comes last in this order is the first choice.
        for preferred in (False, True):
            for run_id, artifact in reversed(self._stored.items()):
                if (run_id in run_ids) is preferred:
                    self._of_digest[artifact.ref.digest] = run_id

    def made_by(self, run_id: str) -> list[str]:
        """The run, if what it made is there."""
        return [run_id] if run_id in self._stored else []

    def named(self, tags: Mapping[str, str]) -> list[str]:
        """The runs whose artifacts tags name; another with an equal artifact where theirs is not there."""
        found = []
        for each in models.named_by(tags).values():
            run_id, equal = each.get("run_id"), self._of_digest.get(each.get("digest", ""))
            if run_id in self._stored:
                found.append(run_id)
            elif equal:
                found.append(equal)
        return found

    def closure(self, run_ids: Iterable[str]) -> set[str]:
        """The runs, and those that made all that was read."""
        found: set[str] = set()
        todo = list(run_ids)
        while todo:
            run_id = todo.pop()
            if run_id in found:
                continue
            found.add(run_id)
            manifest = self._stored[run_id].manifest
            digests = manifest.upstream.values() if manifest else ()
            todo += [self._of_digest[digest] for digest in digests if digest in self._of_digest]
        return found
