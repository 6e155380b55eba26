"""What nothing keeps in the folders of this machine: of dead processes, old, or of versions that are gone.

Knows folders, their locks and their ages.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prorec.tasks.local import paths
from prorec.tasks.local.folders import changed, states, written
from prorec.tasks.registry import models
from prorec.tasks.tracking import store
from prorec.tasks.tracking.mlflow_runs import ARTIFACT_FOLDER, client
from prorec.tasks.tracking.retries import retrying
from prorec.tasks.tracking.store import is_active, is_stored
from prorec.tasks.upkeep.retention import DAY, Inventory, read_by
from prorec_core.artifacts import ArtifactRef, read_json

_RANDOM_LETTERS = 8
"""At the end of the name of a file that is being written."""


@dataclass(frozen=True)
class Leftover:
    """Something that nothing keeps.

    Attributes:
        kind: what sort of thing it is, in the plural.
        name: which one.
        bytes: its size.
        delete: deletes it; False where it came into use in the meantime.
    """

    kind: str
    name: str
    bytes: int
    delete: Callable[[], bool]


def left_locally(inventory: Inventory, keep_days: float) -> Iterator[Leftover]:
    """All of it; what may still be of use is left for `keep_days` days."""
    yield from _work()
    yield from _checkpoints(inventory, keep_days)
    yield from _downloads(inventory, keep_days)
    yield from _snapshots(inventory, keep_days)
    yield from _parts(keep_days)
    yield from _lists(inventory, keep_days)
    yield from _unfinished_files()


def _work() -> Iterator[Leftover]:
    for folder in _folders(paths.artifacts() / "work"):
        yield from _unless_locked("work folders of dead processes", folder, folder.name)


def _checkpoints(inventory: Inventory, keep_days: float) -> Iterator[Leftover]:
    done: dict[str, float] = {}
    for run in filter(is_stored, inventory.runs):
        key = run.data.tags.get(store.KEY_TAG, "")
        done[key] = max(done.get(key, 0.0), (run.info.end_time or 0) / 1000)
    for folder in _folders(paths.artifacts() / "checkpoints"):
        # Younger ones are those of a training that was begun anew, and is to go on.
        if written(folder) <= done.get(folder.name, -1.0) or _is_old(folder, keep_days):
            yield from _unless_locked("checkpoints", folder, folder.name)


def _downloads(inventory: Inventory, keep_days: float) -> Iterator[Leftover]:
    """Local copies of what is kept elsewhere: those that nothing keeps, and old ones that no run or service reads."""
    active = {each.ref.digest for each in read_by(filter(is_active, inventory.runs), inventory)}
    # What an alias names is served, also while the server that has it is away.
    active |= {each.tags.get(store.MODEL_MANIFEST_TAG, "") for each in inventory.versions if each.aliases}
    known = {each.ref.digest for each in inventory.stored if inventory.kept_by(each)}
    known |= {version.tags.get(store.MODEL_MANIFEST_TAG, "") for version in inventory.versions}
    for folder in _folders(paths.artifacts() / "downloads"):
        days = keep_days if folder.name in known else min(keep_days, 1)
        if folder.name not in active and _is_old(folder, days):
            yield from _unless_locked("downloads", folder, f"download-{folder.name}")


def _snapshots(inventory: Inventory, keep_days: float) -> Iterator[Leftover]:
    """What a database gave, where no data set that is kept was made of it and nothing read it lately."""

    def deleted(folder: Path) -> Callable[[], bool]:
        def delete() -> bool:
            # Who reads one marks it.
            if not _is_old(folder, keep_days):
                return False
            shutil.rmtree(folder)
            return True

        return delete

    old = [each for each in _folders(paths.snapshots()) if each.name[0] != "." and _is_old(each, keep_days)]
    kept = [each for each in inventory.stored if each.ref.stage == "preprocess" and inventory.kept_by(each)]
    used = {_snapshot_of(each.ref) for each in kept} if old else set()
    for folder in old:
        # Of a data set that cannot be asked it is not known.
        if folder.name not in used and None not in used:
            yield Leftover("snapshots of databases", folder.name, _size(folder), deleted(folder))


def _snapshot_of(ref: ArtifactRef) -> str | None:
    """The snapshot that a data set was made of; "" where it was of other data, None where that cannot be read."""
    from mlflow.exceptions import MlflowException

    folder = paths.local_path(ref.uri)
    try:
        if folder is not None:
            return str(read_json(folder / "profile.json").get("snapshot", ""))
        with tempfile.TemporaryDirectory() as scratch:
            path = retrying(client().download_artifacts, ref.run_id, f"{ARTIFACT_FOLDER}/profile.json", scratch)
            return str(read_json(Path(path)).get("snapshot", ""))
    except (OSError, ValueError, MlflowException):
        return None


def _parts(keep_days: float) -> Iterator[Leftover]:
    """What batch recommendations left that were never gone on with."""
    for folder in _folders(paths.artifacts() / "recommendations"):
        output = folder.parent / folder.name.removeprefix(".").removesuffix(".parts")
        if folder.name.endswith(".parts") and _is_old(folder, keep_days):
            yield from _unless_locked("unfinished recommendations", folder, paths.output_lock(output))


def _lists(inventory: Inventory, keep_days: float) -> Iterator[Leftover]:
    """Recommendations under the name that they get by themselves, of versions that are gone; only where such go."""
    if inventory.keep_versions is None:
        return
    there = {each.title for each in inventory.versions}
    gone: dict[Path, tuple[str, str]] = {}
    # Of what this store's runs wrote: another store may use the folder, too, and have a version of that name.
    for run in inventory.runs:
        title = run.data.params.get("model", "").removeprefix("models:/")
        name, _, number = title.partition("/")
        path = paths.recommendations(name, number)
        if number and title not in there and run.data.params.get("output") == str(path):
            gone[path] = name, number

    def deleted(path: Path, name: str, number: str) -> Callable[[], bool]:
        def delete() -> bool:
            with paths.try_lock(paths.output_lock(path)) as free:
                if not free or models.find(name, number) is not None or not _is_old(path, keep_days):
                    return False
                path.unlink(missing_ok=True)
                return True

        return delete

    for path, version in sorted(gone.items()):
        if path.is_file() and _is_old(path, keep_days):
            delete = deleted(path, *version)
            yield Leftover("recommendations of versions that are gone", path.name, _size(path), delete)


def _unfinished_files() -> Iterator[Leftover]:
    """Files under names of their own, beside those that they were to become: their writers died in between."""

    def deleted(path: Path) -> Callable[[], bool]:
        def delete() -> bool:
            path.unlink(missing_ok=True)
            return True

        return delete

    for parent in (paths.artifacts() / name for name in ("recommendations", "stack")):
        for path in sorted(parent.glob(f".*.{'[a-z0-9_]' * _RANDOM_LETTERS}")):
            found = next(states(path), None)
            # They are their owner's alone until they are done.
            if found and stat.S_IMODE(found.st_mode) == 0o600 and path.is_file() and _is_old(path, 1):
                yield Leftover("unfinished files", path.name, found.st_size, deleted(path))


def _folders(parent: Path) -> Iterable[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _is_old(path: Path, days: float) -> bool:
    return changed(path) < time.time() - days * DAY


def _size(folder: Path) -> int:
    return sum(found.st_size for found in states(folder) if stat.S_ISREG(found.st_mode))


def _unless_locked(kind: str, folder: Path, lock: str) -> Iterator[Leftover]:
    def delete() -> bool:
        with paths.try_lock(lock) as free:
            if free:
                shutil.rmtree(folder)
            return free

    with paths.try_lock(lock) as free:
        if not free:
            return
    yield Leftover(kind, folder.name, _size(folder), delete)
