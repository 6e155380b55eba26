"""Batch recommendations as a Prefect task with an MLflow run. Knows which model and which users; not how it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from prorec.tasks.execution.cluster import expect_cluster
from prorec.tasks.execution.events import Notice, StageEnded, StageProgress, StageStarted, emit
from prorec.tasks.execution.prefect_run import PrefectRun
from prorec.tasks.local import paths
from prorec.tasks.local.waiting import so_far
from prorec.tasks.registry import models, recommenders
from prorec.tasks.registry.lists import ListStore
from prorec.tasks.registry.recommenders import RegisteredVersion
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.datasets import DataSet
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.tracking.retries import retrying
from prorec_core.artifacts import ArtifactRef
from prorec_core.config_compute import ComputeConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.formats import TextRules, is_file
from prorec_core.data.histories import Columns, DatasetHistories, FileHistories, Histories
from prorec_core.errors import UserError
from prorec_core.generation.rules import Chosen, Rule
from prorec_core.paths import path_of
from prorec_core.progress import Progress
from prorec_core.sections import Name, Place, Section
from prorec_core.values import TimestampFormat

NAME = "recommend"
_ALL = "all"


class BatchRequest(Section):
    """Which model is to recommend what to whom."""

    model: Place = Field("models:/prorec-demo@champion", description="models:/NAME@ALIAS or models:/NAME/VERSION.")
    users: Place = Field(
        _ALL,
        description="all: every user of the data set that the model was made with; or a file (Parquet, CSV, JSON "
        "Lines) of histories or of interactions.",
    )
    k: int = Field(10, ge=1, le=1000, description="Items a user.")
    output: Place | None = Field(
        None,
        description="The Parquet file; for all users by default recommendations/MODEL-VERSION.parquet in the folder of "
        "artifacts.",
    )
    mask_history: bool | None = Field(
        None, description="Leave out what a user already has; null: as the model was measured."
    )
    unknown_items: Literal["error", "drop"] = Field(
        "error", description="Items in a file that the model does not know: stop with an error, or pass over them."
    )
    chunk: int = Field(1000, ge=1, le=100_000, description="Users at a time; what is done is kept chunk by chunk.")
    user_column: Name = Field("user_id", description="Column of the user's id in a file.")
    history_column: Name = Field("history", description="Column of item ids, the oldest first, in a file of histories.")
    item_column: Name = Field("item_id", description="Column of the item's id in a file of interactions.")
    timestamp_column: Name | None = Field(
        "timestamp", description="Column of the time in a file of interactions; null: the file is already in order."
    )
    timestamp_format: TimestampFormat = None
    quotes: bool = Field(True, description="A CSV or TSV file's quotes enclose fields; false: they are characters.")
    multiline: bool = Field(
        False, description="A quoted field of such a file may have lines that look like rows by themselves."
    )
    only: Chosen | None = Field(None, description="What alone may be recommended: all that it says has to be met.")
    exclude: Chosen | None = Field(None, description="What may not be: an item is left out that meets any of it.")
    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="Who computes.")
    explain: bool = Field(False, description="Add columns that say why each item is there; takes longer.")


def short_lists_note(summary: Mapping[str, Any]) -> str:
    """The line on users who got fewer items than asked for; empty where there are none."""
    if not summary["users_short"]:
        return ""
    none = f", {summary['users_empty']:,} of them none" if summary["users_empty"] else ""
    short = f"{summary['users_short']:,} of {summary['users']:,} users got fewer than {summary['k']:,} items{none}"
    more = "no more may be recommended" if summary.get("allowed") is not None else "the catalogue has no more"
    return f"{short}: {more} that they lack."


@task(name=NAME, task_run_name="recommend · {request.model}", cache_policy=NO_CACHE, persist_result=False)
def recommend(request: BatchRequest) -> dict[str, Any]:
    """Write the best items of every user to a Parquet file.

    Returns:
        `model` (its version's URI), `output`, `users`, `rows`, `unknown_items` (how many were passed over),
        `users_short` (who got fewer than `k` items), `users_empty` (who got none), with a rule `allowed` (how many
        items it leaves), `k`, `sha256`, `seconds` and `mlflow` (experiment, run and page).

    Raises:
        UserError: no such model, file or list, another catalogue than the model's, a rule that cannot be asked of it or
            leaves nothing, or no room.
    """
    begun = time.monotonic()
    emit(StageStarted(NAME))
    expect_cluster(request.compute)
    version = recommenders.find(request.model)
    output = _output(request, version)
    experiment = mlflow_runs.experiment_id(version.name.removeprefix(mlflow_runs.experiment_name("")))
    run = TrackedRun.start(
        experiment,
        f"recommend · {version.name}/{version.version}",
        tags={
            "prorec.kind": NAME,
            models.MODEL_OF_RUN_TAG: version.uri,
            **PrefectRun.here().tags,
        },
    )
    try:
        with paths.lock(
            paths.output_lock(output),
            lambda seconds: _notice(f"another run writes this file; waiting{so_far(seconds)}"),
        ):
            summary = _write(request, version, output, run, begun)
    except BaseException as error:
        run.finish(*mlflow_runs.how_it_ended(error))
        raise
    run.finish()
    ref = ArtifactRef(stage=NAME, digest=summary["sha256"], run_id=run.id, uri=str(output))
    emit(StageEnded(ref, False, time.monotonic() - begun))
    page = mlflow_runs.page(experiment, run.id)
    return {**summary, "mlflow": {"experiment_id": experiment, "run_id": run.id, "page": page}}


def _write(
    request: BatchRequest, version: RegisteredVersion, output: Path, run: TrackedRun, begun: float
) -> dict[str, Any]:
    from prorec_core.generation.batch import BatchSettings, check_catalogue, recommend_all

    run.parameters({**request.model_dump(), "model": version.uri, "output": str(output)})
    _note_inputs(run, version, request)
    rule = Rule.of(request.only, request.exclude, ListStore().content)
    histories = _histories(request, version)
    recommender = recommenders.load(version)
    left = None if rule is None else recommender.rules.left(rule)
    if left is not None and left.unknown:
        _notice(left.unknown_told)
    unknown = check_catalogue(
        recommender, histories, whole=request.users == _ALL, drop_unknown=request.unknown_items == "drop"
    )
    if unknown:
        _notice(f"{unknown:,} items of {histories.place} are unknown to the model and passed over")
    if recommender.withdrawn and (gone := len(recommender.withdrawn.intersection(histories.item_ids().to_list()))):
        _notice(f"{gone:,} items of {histories.place} were withdrawn and are passed over in histories")
    masked = recommender.history_masked if request.mask_history is None else request.mask_history
    settings = BatchSettings(
        request.k, masked, request.chunk, version.uri, version.manifest_sha256, rule, request.explain
    )

    def report(progress: Progress) -> None:
        run.metrics({"users_done": progress.step}, progress.step)
        emit(StageProgress(NAME, progress))

    make = None
    if request.compute.engine == "ray":
        from prorec.tasks.registry import spread

        make = spread.making(version, settings, request.compute, _notice)
    result = recommend_all(recommender, histories, settings, output, report, make)
    if result.users_found:
        _notice(f"{result.users_found:,} of {result.users:,} users were done by an earlier run")
    seconds = time.monotonic() - begun
    counts = {"users": result.users, "rows": result.rows, "unknown_items": unknown}
    counts |= {"users_short": result.users_short, "users_empty": result.users_empty}
    if left is not None:
        counts["allowed"] = left.allowed.count
    run.metrics({**counts, "seconds": seconds})
    run.tags({"prorec.output": str(output), "prorec.output_sha256": result.sha256})
    return {
        "model": version.uri,
        "output": str(output),
        **counts,
        "k": request.k,
        "sha256": result.sha256,
        "seconds": round(seconds, 3),
    }


def _output(request: BatchRequest, version: RegisteredVersion) -> Path:
    if request.output is None:
        ruled = request.only is not None or request.exclude is not None
        if request.users != _ALL or ruled:
            what = "that follow a rule" if ruled else "for the users of a file"
            raise UserError(
                f"lists {what} would take the place of those for all",
                place="--output",
                cure="Name a file for them (of a deployment's request: output)",
            )
        return paths.recommendations(version.name, version.version)
    output = path_of(request.output).absolute()
    paths.expect_output(output, str(output), [path_of(request.users)], parquet=True)
    return output


def _histories(request: BatchRequest, version: RegisteredVersion) -> Histories:
    if request.users != _ALL:
        columns = Columns(
            request.user_column,
            request.history_column,
            request.item_column,
            request.timestamp_column,
            request.timestamp_format,
        )
        rules = TextRules(request.quotes, request.multiline, "--no-quotes", "--multiline")
        found = FileHistories(path_of(request.users), columns, rules)
        _ = found.n_users  # Reads the file: what is wrong with it is told before the model is loaded.
        return found
    carried = models.find(version.name, version.version)
    data = carried.artifact("preprocess") if carried else None
    if data is None:
        raise UserError(
            "it is not known which data set the model was made with",
            place=version.uri,
            cure="Run its experiment again (what is cached is not made again), or give a file of histories",
        )
    return DatasetHistories(Dataset.load(store.fetch(data)))


def _note_inputs(run: TrackedRun, version: RegisteredVersion, request: BatchRequest) -> None:
    from mlflow.entities import LoggedModelInput

    retrying(client().log_inputs, run.id, models=[LoggedModelInput(version.model_id)])
    path = path_of(request.users)
    if request.users != _ALL and is_file(path):
        from prorec_core.artifacts import sha256_file

        run.data_set(DataSet(path.name, sha256_file(path), str(path.absolute()), {}, None))


def _notice(text: str) -> None:
    emit(Notice(f"{NAME}: {text}"))
