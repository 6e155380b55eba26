"""Which registered versions have had their day, and how one is deleted. Knows versions, aliases and what runs name.

Knows nothing of files: those of a version that is gone are found as what nothing keeps, like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prorec.tasks.registry import models, promotion
from prorec.tasks.registry.models import Version
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import client
from prorec.tasks.tracking.retries import retrying
from prorec.tasks.tracking.store import is_active

if TYPE_CHECKING:
    from mlflow.entities import Run


def line_of(run_id: str, parents: Mapping[str, str]) -> list[str]:
    """A run and those above it, the nearest first."""
    line = [run_id]
    while (above := parents.get(line[-1])) and above not in line:
        line.append(above)
    return line


def in_passing(versions: Iterable[Version], runs: Iterable[Run]) -> set[str]:
    """Titles of those that comparisons and tunings made, which are not the model of any run."""
    runs = list(runs)
    parents = {run.info.run_id: run.data.tags.get(mlflow_runs.PARENT_TAG, "") for run in runs}
    variants = {run.info.run_id for run in runs if mlflow_runs.VARIANT_TAG in run.data.tags}
    used = {run.data.tags.get(models.MODEL_OF_RUN_TAG) for run in runs}
    return {each.title for each in versions if each.uri not in used and parents.get(each.run_id) in variants}


def outdated(versions: Collection[Version], runs: Collection[Run], keep: int, since: float) -> list[Version]:
    """Versions that nobody is known to need any more, newest first by model.

    Needed are, of each model, the newest that were trained and evaluated, and as many of those made without training;
    what has an alias, and what that took the alias from; what was made lately, or is named by a run that goes on or
    ended lately; and whatever one of these went on from. What comparisons and tunings made in passing, and what was
    never evaluated, is not among the newest.

    Args:
        versions: all that are registered.
        runs: all runs of this project's experiments.
        keep: how many of the newest stay.
        since: what was made or named later is needed, seconds since 1970.
    """
    by_title = {each.title: each for each in versions}
    todo = list(_needed(versions, runs, keep, since))
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


def _needed(versions: Collection[Version], runs: Collection[Run], keep: int, since: float) -> Iterator[str]:
    passing = in_passing(versions, runs)
    counted: dict[tuple[str, bool], int] = {}
    for each in sorted(versions, key=lambda version: (version.name, -version.number)):
        if each.title not in passing and models.SCORER_TAG in each.tags:
            kind = each.name, models.MADE_FROM_TAG in each.tags
            counted[kind] = counted.get(kind, 0) + 1
            if counted[kind] <= keep:
                yield each.title
    active = {run.info.run_id for run in runs if is_active(run)}
    parents = {run.info.run_id: run.data.tags.get(mlflow_runs.PARENT_TAG, "") for run in runs}
    for each in versions:
        if each.aliases or each.created >= since or not active.isdisjoint(line_of(each.run_id, parents)):
            yield each.title
    for run in runs:
        if run.info.run_id in active or max(run.info.start_time, run.info.end_time or 0) / 1000 >= since:
            yield from map(_title, (*run.data.tags.values(), *run.data.params.values()))


def _title(uri: str) -> str:
    """The version's title, of its URI; of any other text something that is no title."""
    return uri.removeprefix("models:/") if uri.startswith("models:/") else ""


def deletions(chosen: Iterable[Version], keep: int, since: float) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The title of each version and what deletes it, which gives False where it has come into use since.

    Args:
        chosen: what `outdated` gave.
        keep, since: as `outdated` had them.
    """
    still = {each.title for each in outdated(models.versions(), list(mlflow_runs.search()), keep, since)}

    def deletion(version: Version) -> Callable[[], bool]:
        def delete() -> bool:
            # So that it does not become the champion meanwhile.
            with promotion.alone(version.name):
                now = models.find(version.name, str(version.number))
                if version.title not in still or now is None or now.aliases:
                    return False
                retrying(client().delete_model_version, version.name, str(version.number))
                return True

        return delete

    for version in chosen:
        yield version.title, deletion(version)
