"""Which version is the champion: a challenger is measured against it, and the alias moved.

Knows runs, versions and their evaluations. Knows nothing of how metrics are computed or of how a version is served.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prorec.tasks.local import paths
from prorec.tasks.registry import models, recommenders
from prorec.tasks.registry.models import MODEL_OF_RUN_TAG, Version
from prorec.tasks.registry.recommenders import CHAMPION
from prorec.tasks.registry.seen import seen_in_line
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.leases import lease
from prorec.tasks.tracking.mlflow_runs import client
from prorec.tasks.tracking.retries import retrying
from prorec_core.artifacts import ArtifactRef, read_json, sha256_json
from prorec_core.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow.entities import Run

PROMOTED = "prorec.promoted."
"""How the tags of a version begin that tell of its promotion."""

OVER_TAG = f"{PROMOTED}over"
"""On a version that was promoted: the title of the champion before, or "nothing"."""

SAMPLES = 10_000
"""Resamples of all users, for intervals of the difference."""

_LENGTH = 50
"""Of lists, where an evaluation does not say it."""
_NAMES = ("the challenger", "the champion")


@dataclass(frozen=True)
class Measured:
    """A version and how it was evaluated.

    Attributes:
        version: the version.
        evaluation, preprocess: the artifacts that it was measured with.
        here: its test metrics on the test of the comparison, where that is another one than its own.
        users: whom that test asks, where it is another one.
    """

    version: Version
    evaluation: ArtifactRef
    preprocess: ArtifactRef
    here: Mapping[str, float] | None = None
    users: int | None = None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json."""
        found: dict[str, Any] = read_json(store.fetch(self.evaluation) / "metrics.json")
        return found

    @property
    def scorer(self) -> str:
        """The scorer by which it recommends."""
        return models.served_scorer(self.metrics)

    @property
    def test(self) -> Mapping[str, float]:
        """Its test metrics."""
        if self.here is not None:
            return self.here
        found: Mapping[str, float] = self.metrics["test"][self.scorer]
        return found

    @property
    def test_users(self) -> int:
        """How many users its test metrics are of."""
        return int(self.metrics["protocol"]["test_users"]) if self.users is None else self.users

    @property
    def ranks(self) -> pa.Table:
        """Its ranks.parquet."""
        from prorec_core.artifacts import read_parquet

        return read_parquet(store.fetch(self.evaluation) / "ranks.parquet", "evaluate")


@dataclass(frozen=True)
class Judgement:
    """A challenger beside the champion.

    Attributes:
        challenger: the version that wants the alias.
        holder: the version that has it, None where none has.
        champion: how that was measured, None where that is not known.
        differences: by metric, challenger minus champion: difference, low and high of its 95% interval; empty where
            there is no champion or the two cannot be compared.
        obstacles: why the two cannot be compared, a phrase each.
    """

    challenger: Measured
    holder: Version | None
    champion: Measured | None = None
    differences: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    obstacles: tuple[str, ...] = ()

    @property
    def already(self) -> bool:
        """Whether the challenger is the champion."""
        return self.holder is not None and self.holder.number == self.challenger.version.number

    @property
    def objection(self) -> str:
        """Why the challenger should not be promoted, in a sentence; "" when nothing speaks against it."""
        if self.holder is None or self.already:
            return ""
        challenger, champion = self.challenger.version.title, f"the champion {self.holder.title}"
        if self.obstacles:
            return f"{challenger} and {champion} were not measured on the same test: {'; '.join(self.obstacles)}"
        worse = {name: found for name, found in self.differences.items() if found["high"] < 0}
        if not worse:
            return ""
        from prorec_core.metrics.table import label

        metrics = ", ".join(f"{label(name)} {interval(found)}" for name, found in worse.items())
        users = self.challenger.test_users
        return f"{challenger} is worse than {champion} on the same {users:,} test users: {metrics}"


def interval(found: Mapping[str, float]) -> str:
    """A difference and its interval, in words."""
    return f"{found['difference']:+.4f} (95% interval {found['low']:+.4f} to {found['high']:+.4f})"


def judge(text: str, tell: Callable[[str], None] = lambda _: None, *, over: str | None = None) -> Judgement:
    """Compare the version of a run, or a version, with the champion of its model.

    Where the data are others by now, the champion is measured on the challenger's test first, as it serves.

    Args:
        text: an MLflow run or a Prefect flow run of a whole experiment, or `prorec-demo/3`.
        tell: told what takes long.
        over: the champion that the challenger was made from, as people name it; None: whoever is.

    Raises:
        UserError: there is no such run or version, it did not end well, it was not evaluated, its files are not whole,
            or another has become the champion since.
    """
    challenger = _challenger(text)
    version = challenger.version
    if problems := store.check_model(version.model_id, version.tags.get(store.MODEL_MANIFEST_TAG)):
        raise UserError(problems[0], place=version.title, cure="Run the experiment again with --force train_generator")
    holder = models.holder(version.name, CHAMPION)
    if holder is None or holder.number == version.number:
        return Judgement(challenger, holder)
    if over not in (None, holder.title):
        raise UserError(
            f"{holder.title} has become the champion, and {version.title} was made from {over}, which was it before",
            place=version.uri,
            cure=f"Do the same again, to {holder.title}",
        )
    try:
        champion = _measured(holder)
        obstacles, moved = _obstacles(challenger, champion)
    except UserError as error:
        # A champion whose evaluation is gone must not stay the champion for ever.
        return Judgement(challenger, holder, obstacles=(f"the champion's evaluation cannot be read ({error})",))
    if moved and not obstacles:
        try:
            return _on_new_test(challenger, champion, tell)
        except UserError as error:
            obstacles = [f"the champion cannot be measured on the challenger's ({error})"]
    if obstacles or moved:
        return Judgement(challenger, holder, champion, obstacles=(*obstacles, *moved))
    from prorec_core.metrics.intervals import compare_runs

    scorers = (challenger.scorer, champion.scorer)
    found = compare_runs(challenger.ranks, champion.ranks, scorers, samples=SAMPLES)
    return Judgement(challenger, holder, champion, found)


def promote(judged: Judgement, *, anyway: bool) -> None:
    """Make the challenger the champion, and leave on it when that was, over which and with what difference.

    Raises:
        UserError: something speaks against it, and it is not to be done anyway; or another machine has promoted another
            version since it was judged.
    """
    if judged.objection and not anyway:
        raise UserError(judged.objection, cure="Promote it all the same with --anyway")
    version = judged.challenger.version
    tags = {
        # The run that is promoted may have measured the version otherwise than the one that registered it.
        **models.stage_tags({"preprocess": judged.challenger.preprocess, "evaluate": judged.challenger.evaluation}),
        f"{PROMOTED}at": datetime.now(UTC).isoformat(timespec="seconds"),
        OVER_TAG: judged.holder.title if judged.holder else "nothing",
        f"{PROMOTED}anyway": judged.objection or "no",
        **{f"{PROMOTED}{name}": interval(of) for name, of in judged.differences.items()},
    }
    with alone(version.name):
        found = models.find(version.name, str(version.number))
        if found is None:
            raise UserError("it was deleted meanwhile", place=version.uri, cure=models.known_versions(version.name))
        holder = models.holder(version.name, CHAMPION)
        if (holder and holder.number) != (judged.holder and judged.holder.number):
            raise UserError(
                f"{holder.title if holder else 'no version'} has become the champion since this one was held against "
                f"{judged.holder.title if judged.holder else 'none'}",
                place=version.uri,
                cure="Promote it again",
            )
        for name in found.tags.keys() - tags.keys():
            if name.startswith(PROMOTED):
                # Of an earlier promotion, over another version.
                retrying(client().delete_model_version_tag, version.name, str(version.number), name)
        for name, value in tags.items():
            retrying(client().set_model_version_tag, version.name, str(version.number), name, value)
        # Last: whoever follows the alias finds the trace of the promotion.
        retrying(client().set_registered_model_alias, version.name, CHAMPION, str(version.number))


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Nobody else, on whatever machine, promotes or deletes versions of the model `name` in this context."""
    with lease(sha256_json(["promotion", name]), lambda *_: None):
        yield


def _challenger(text: str) -> Measured:
    if "/" in text or "@" in text:
        return _measured(models.named(text))
    if paths.nothing_tracked():
        raise UserError("nothing was ever run here", place=text, cure="Run `prorec run demo` first")
    run = _run(text)
    tags = run.data.tags
    if run.info.status != "FINISHED":
        raise UserError(
            f"the run has not ended well: it is {run.info.status}", place=text, cure="Promote one that is finished"
        )
    uri, evaluated = tags.get(MODEL_OF_RUN_TAG), tags.get(models.run_tag("evaluate"))
    if not uri or not evaluated:
        raise UserError("the run made no model that was evaluated", place=text, cure=models.known_versions())
    version = models.named(uri)
    return _measured(replace(version, tags={**version.tags, **_artifacts_of(tags)}))


def version_named(text: str) -> Version:
    """The version that `models:/NAME/3` or `NAME@ALIAS` names, or that the run of a whole experiment made.

    Raises:
        UserError: there is none.
    """
    if "/" in text or "@" in text:
        return models.named(text)
    if paths.nothing_tracked():
        raise UserError("nothing was ever run here", place=text, cure="Run `prorec run demo` first")
    uri = _run(text).data.tags.get(MODEL_OF_RUN_TAG)
    if not uri:
        raise UserError("the run made no model", place=text, cure=models.known_versions())
    return models.named(uri)


def _artifacts_of(tags: Mapping[str, str]) -> dict[str, str]:
    return {models.run_tag(stage): tags[models.run_tag(stage)] for stage in ("preprocess", "evaluate")}


def _run(text: str) -> Run:
    """The run of an experiment, by its id in MLflow or in Prefect, or by that of one of its stages."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        run = retrying(client().get_run, text)
        parent = run.data.tags.get(mlflow_runs.PARENT_TAG)
        return retrying(client().get_run, parent) if parent else run
    with contextlib.suppress(ValueError):
        found = mlflow_runs.search(f"tags.`{mlflow_runs.FLOW_RUN_TAG}` = '{UUID(text)}'")
        # A flow run that was tried again has a run for each try.
        own = [run for run in found if mlflow_runs.PARENT_TAG not in run.data.tags]
        if own:
            return max(own, key=lambda run: (run.info.status == "FINISHED", run.info.start_time))
    raise UserError("there is no such run, nor such a version", place=text, cure=models.known_versions())


def _measured(version: Version) -> Measured:
    found = [version.artifact(stage) for stage in ("evaluate", "preprocess")]
    if found[0] is None or found[1] is None:
        raise UserError(
            "it was never evaluated",
            place=version.title,
            cure="Run its experiment again: what is cached is not made again, and the evaluation is noted",
        )
    return Measured(version, found[0], found[1])


def _obstacles(challenger: Measured, champion: Measured) -> tuple[list[str], list[str]]:
    """Why the two cannot be compared: for how they were measured, and for the data that they were measured on."""
    from prorec_core.data.dataset import Dataset
    from prorec_core.evaluation.comparable import data_differences, moment_differences, protocol_differences

    protocols = challenger.metrics["protocol"], champion.metrics["protocol"]
    found, moved = protocol_differences(*protocols, _NAMES), moment_differences(*protocols, _NAMES)
    if moved or challenger.preprocess.digest == champion.preprocess.digest:
        return found, moved
    data = [Dataset.load(store.fetch(each.preprocess)) for each in (challenger, champion)]
    return found, data_differences(data[0], data[1], _NAMES)


def _on_new_test(challenger: Measured, champion: Measured, tell: Callable[[str], None]) -> Judgement:
    """Measure the champion on the challenger's test, and compare; neither on the few targets that it was trained on.

    Raises:
        UserError: it, or one that it went on from, was trained on more of them; its files or the data cannot be read.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from prorec_core.data.dataset import Dataset
    from prorec_core.data.sequences import Split
    from prorec_core.evaluation.served import served_ranks
    from prorec_core.metrics.intervals import compare_runs
    from prorec_core.metrics.measuring import rank_metrics

    now = Dataset.load(store.fetch(challenger.preprocess))
    protocol, own = challenger.metrics["protocol"], challenger.ranks
    length = int(protocol.get("list_length", _LENGTH))
    own = own.filter(pc.equal(own["split"], "test"))
    if seen := seen_in_line(champion.version, now, (Split.TEST,), tell).get(Split.TEST):
        if not seen.few or own.num_rows != len(seen.targets):
            raise UserError(seen.told)
        tell(f"Left out of the comparison: {seen.told}.")
        # Rows of one split stand in the order of its targets.
        own = own.filter(pa.array(~seen.targets))
        now = replace(now, sequences=now.sequences.leaving_out(Split.TEST, seen.targets))
    owners = now.sequences.owners_of(Split.TEST)
    users = len(np.unique(owners))
    if seen:
        left = rank_metrics(own[f"rank_{challenger.scorer}"].to_numpy(), length, owners)
        challenger = replace(challenger, here=left, users=users)
    tell(f"Measuring {champion.version.title} on the test of {challenger.version.title}: {users:,} users.")
    recommender = recommenders.load(recommenders.find(champion.version.uri))
    ranks = served_ranks(recommender, now, length, masked=protocol["history_masked"])
    rows = {"user": owners, "target": now.sequences.targets(Split.TEST), "split": ["test"] * len(ranks)}
    table, scorers = pa.table({**rows, "rank_served": ranks}), (challenger.scorer, "served")
    found = compare_runs(own, table, scorers, samples=SAMPLES)
    champion = replace(champion, here=rank_metrics(ranks, length, owners), users=users)
    return Judgement(challenger, champion.version, champion, found)
