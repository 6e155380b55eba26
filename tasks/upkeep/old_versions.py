"""Which registered versions have had their day, and how one is deleted. Knows versions, aliases and what runs name.

Knows nothing of files: those of a version that is gone are found as what nothing keeps, like all others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prorec.tasks.registry import models, promotion
from prorec.tasks.registry.models import Version
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import client
from prorec.tasks.tracking.retries import retrying
from prorec.tasks.tracking.store import is_active

if TYPE_CHECKING:
    from mlflow.entities import Run

_LOOK = 10.0
"""Seconds for which a look at all runs is good enough while versions are deleted."""


def line_of(run_id: str, parents: Mapping[str, str]) -> list[str]:
    """A run and those above it, the nearest first."""
    line = [run_id]
    while (above := parents.get(line[-1])) and above not in line:
        line.append(above)
    return line


def in_passing(versions: Iterable[Version], runs: Collection[Run]) -> set[str]:
    """Titles of those that comparisons and tunings made, which are not the model of any run."""
    parents = parents_of(runs)
    variants = {run.info.run_id for run in runs if mlflow_runs.VARIANT_TAG in run.data.tags}
    used = {run.data.tags.get(models.MODEL_OF_RUN_TAG) for run in runs}
    return {
        each.title
        for each in versions
        if each.uri not in used and (mlflow_runs.VARIANT_TAG in each.tags or parents.get(each.run_id) in variants)
    }


def parents_of(runs: Iterable[Run]) -> dict[str, str]:
    """By run, the one above it; "" where there is none."""
    return {run.info.run_id: run.data.tags.get(mlflow_runs.PARENT_TAG, "") for run in runs}


def gone_on_from(versions: Iterable[Version], runs: Iterable[Run]) -> set[str]:
    """Titles of those that a version, or a run that goes on, was started from."""
    started = [each.tags.get(models.STARTED_FROM_TAG, "") for each in versions]
    started += [run.data.params.get("start_from", "") for run in runs if is_active(run)]
    return set(map(_title, started))


def outdated(versions: Collection[Version], runs: Collection[Run], keep: int, since: float) -> list[Version]:
    """Versions that nobody is known to need any more, newest first by model.

    Needed are, of each model, the newest that were trained and evaluated, and as many of those made without training;
    what has an alias, and what that took the alias from; what was made lately; what is named, or whose artifacts are,
    by a run that goes on or ended lately; and whatever one of these went on from. What comparisons and tunings made in
    passing, and what was never evaluated, is not among the newest.

    Args:
        versions: all that are registered.
        runs: all runs of this project's experiments.
        keep: how many of the newest stay.
        since: what was made or named later is needed, seconds since 1970.
    """
    by_title = {each.title: each for each in versions}
    todo = [*_newest(versions, runs, keep), *_in_use(versions, runs, since)]
    needed = set[str]()
    while todo:
        title = todo.pop()
        if title in needed or title not in by_title:
            continue
        needed.add(title)
        tags = by_title[title].tags
        todo.append(_title(tags.get(models.STARTED_FROM_TAG, "")))
        if by_title[title].aliases:
            todo.append(tags.get(promotion.OVER_TAG, ""))
    return [each for each in versions if each.title not in needed]


def _newest(versions: Collection[Version], runs: Collection[Run], keep: int) -> Iterator[str]:
    passing = in_passing(versions, runs)
    counted: dict[tuple[str, bool], int] = {}
    for each in sorted(versions, key=lambda version: (version.name, -version.number)):
        if each.title not in passing and models.SCORER_TAG in each.tags:
            kind = each.name, models.MADE_FROM_TAG in each.tags
            counted[kind] = counted.get(kind, 0) + 1
            if counted[kind] <= keep:
                yield each.title


def _in_use(versions: Collection[Version], runs: Collection[Run], since: float) -> Iterator[str]:
    active = {run.info.run_id for run in runs if is_active(run)}
    parents = parents_of(runs)
    read = set[str]()
    for run in runs:
        if run.info.run_id in active or max(run.info.start_time, run.info.end_time or 0) / 1000 >= since:
            yield from map(_title, (*run.data.tags.values(), *run.data.params.values()))
            read |= {each.get("run_id", "") for each in models.named_by(run.data.tags).values()}
    # A generator that came from the cache: its version may be named by the run that made it alone.
    yield from (_title(run.data.tags.get(store.MODEL_URI_TAG, "")) for run in runs if run.info.run_id in read)
    for each in versions:
        at_work = not active.isdisjoint(line_of(each.run_id, parents))
        if each.aliases or each.created >= since or each.run_id in read or at_work:
            yield each.title


def _title(uri: str) -> str:
    """The version's title, of its URI; "" of any other text."""
    return uri.removeprefix("models:/") if uri.startswith("models:/") else ""


def deletion(keep: int, since: float) -> Callable[[Version], bool]:
    """What deletes an outdated version, and gives False where it has come into use since.

    Args:
        keep, since: as `outdated` has them.
    """
    from mlflow.exceptions import MlflowException

    runs: list[Run] = []
    looked = 0.0

    def delete(version: Version) -> bool:
        nonlocal runs, looked
        # So that it does not become the champion meanwhile.
        with promotion.alone(version.name):
            if not looked or time.monotonic() - looked > _LOOK:
                runs, looked = list(mlflow_runs.search()), time.monotonic()
            if version.title not in {each.title for each in outdated(models.versions(), runs, keep, since)}:
                return False
            try:
                retrying(client().delete_model_version, version.name, str(version.number))
            except MlflowException as error:
                # Done by the call before, whose answer was lost.
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            return True

    return delete
