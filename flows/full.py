"""The whole pipeline as a Prefect flow: which stage follows which. Knows no stage's inside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from prorec.flows.configuration.experiments import Parameter, checked
from prorec.tasks.execution import pages
from prorec.tasks.execution.cluster import expect_cluster, kept
from prorec.tasks.execution.events import StageEnded, listening
from prorec.tasks.execution.prefect_run import PrefectRun, failed
from prorec.tasks.execution.runner import run_stage
from prorec.tasks.execution.stage import FlowTracking
from prorec.tasks.local.machine_errors import explained
from prorec.tasks.local.stopping import end_when_asked
from prorec.tasks.registry import models
from prorec.tasks.stages.fitting import fitted
from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.stages.start import pinned
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.datasets import data_sets
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec.tasks.upkeep.tidy import tidy_first
from prorec_core import versions
from prorec_core.artifacts import ArtifactRef, read_json
from prorec_core.config import Experiment, left_open
from prorec_core.errors import one_line
from prorec_core.fitting import known_values
from prorec_core.stages.ahead import expect_given, expect_possible
from prorec_core.visible import in_markdown

_forced: ContextVar[frozenset[str]] = ContextVar("forced", default=frozenset())
_tags: ContextVar[Mapping[str, str]] = ContextVar("tags", default=MappingProxyType({}))


@contextmanager
def forcing(stages: frozenset[str]) -> Iterator[None]:
    """Have flows that run in this context make these stages anew, whatever the cache holds."""
    token = _forced.set(stages)
    try:
        yield
    finally:
        _forced.reset(token)


@contextmanager
def tagging(tags: Mapping[str, str]) -> Iterator[None]:
    """Have the MLflow runs of flows that run in this context carry these tags, from their start."""
    token = _tags.set(tags)
    try:
        yield
    finally:
        _tags.reset(token)


@flow(
    name="prorec",
    description="From interactions and texts to recommendations by generated codes.",
    flow_run_name="{experiment.name} · seed {experiment.seed}",
)
def prorec(experiment: Parameter = left_open()) -> dict[str, Any]:  # noqa: B008 Prefect shows the default
    """Run all stages of an experiment.

    Returns:
        `stages` (name, cached, seconds, run_id, digest, uri each), `metrics`, `model` (URI), `mlflow` (experiment,
        run and page), `report` (URI of the HTML page) and `items` (some ids).

    Raises:
        UserError: a mistake that the user can put right.
    """
    end_when_asked()
    mlflow_experiment = mlflow_runs.experiment_id(experiment.name)
    prefect_run = PrefectRun.here()
    experiment = pinned(checked(experiment), prefect_run.tags)
    attempt = f" · attempt {prefect_run.attempt}" if prefect_run.attempt > 1 else ""
    run = TrackedRun.start(
        mlflow_experiment,
        (prefect_run.name or experiment.name) + attempt,
        tags={
            **prefect_run.tags,
            **_tags.get(),
            mlflow_runs.EXPERIMENT_TAG: experiment.name,
            mlflow_runs.FOLDER_TAG: _folder(),
        },
    )
    page = mlflow_runs.page(mlflow_experiment, run.id)
    get_run_logger().info("MLflow run %s%s", run.id, f" at {page}" if page else "")
    ended: list[StageEnded] = []

    def note(head: str, table: str = "") -> str:
        head = f"**{experiment.name}**, seed {experiment.seed}: {head}"
        return pages.experiment_page(head, ended, prefect_run, pages.inner, run.id, table)

    again = f"To run it again: {prefect_run.again}"
    at_work = ""
    try:
        _note(run, experiment)
        run.tags({mlflow_runs.NOTE_TAG: note("not finished.")})
        get_run_logger().info("Left by processes that died: %s", tidy_first())
        refs: dict[str, ArtifactRef] = {}
        place = FlowTracking(experiment_id=mlflow_experiment, run_id=run.id)
        expect_cluster(experiment.compute)
        expect_given(experiment)
        with kept(), listening(lambda event: ended.append(event) if isinstance(event, StageEnded) else None):
            for stage in STAGES.values():
                at_work = f"{stage.name}: "
                refs[stage.name] = run_stage(stage, experiment, place, refs, force=stage.name in _forced.get())
                if stage.name == "preprocess":
                    experiment = fitted(experiment, refs[stage.name], tell=True)
                    _note(run, experiment)
                    expect_possible(experiment, store.fetch(refs[stage.name]))
                    for data in data_sets(experiment.name, store.fetch(refs[stage.name]), refs[stage.name].uri):
                        run.data_set(data)
                # At once, so that what a run reads is known while it goes on.
                run.tags(
                    {mlflow_runs.NOTE_TAG: note("not finished."), **models.stage_tags({stage.name: refs[stage.name]})}
                )
        at_work = ""
        summary = _summary(ended, refs, run, page)
        _publish(experiment, summary, refs, run)
        table = (store.fetch(refs["report"]) / "result.md").read_text(encoding="utf-8")
        run.tags({mlflow_runs.NOTE_TAG: note("done.", table)})
        run.text(mlflow_runs.SUMMARY_FILE, json.dumps(summary, indent=1))
        create_markdown_artifact(
            key=f"result-{experiment.name.replace('_', '-')}",
            markdown=pages.experiment_page(
                f"# {experiment.name}, seed {experiment.seed}", ended, prefect_run, pages.outer, run.id, table
            ),
            description=f"Result of the experiment {experiment.name}",
        )
        run.finish()
    except Exception as error:
        reason = at_work + one_line(explained(error) or error)
        run.finish("FAILED", reason, note(f"**failed.** {in_markdown(reason)}\n\n{again}"))
        result: dict[str, Any] = failed(error, reason)
        return result
    except BaseException:
        run.finish("KILLED", f"{at_work}stopped", note(f"**stopped.** {again}"))
        raise
    return summary


def _folder() -> str:
    """The folder at which relative paths start; "" where it is gone, or its name is not in UTF-8."""
    try:
        # What is in no UTF-8 cannot be kept as a tag.
        return os.fsencode(Path.cwd()).decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _note(run: TrackedRun, experiment: Experiment) -> None:
    """Write an experiment onto its run: as it was given, and again once what it leaves to its data is known."""
    run.text(mlflow_runs.EXPERIMENT_FILE, json.dumps(versions.stored(experiment.model_dump(mode="json")), indent=1))
    run.parameters(known_values(experiment))


def _summary(
    ended: list[StageEnded], refs: Mapping[str, ArtifactRef], run: TrackedRun, page: str | None
) -> dict[str, Any]:
    metrics = read_json(store.fetch(refs["evaluate"]) / "metrics.json")
    return {
        "stages": [
            {
                "name": event.ref.stage,
                "cached": event.cached,
                "seconds": round(event.seconds, 3),
                "run_id": event.ref.run_id,
                "digest": event.ref.digest,
                "uri": event.ref.uri,
            }
            for event in ended
        ],
        "metrics": metrics,
        "model": models.version_of(refs["train_generator"]),
        "report": f"{refs['report'].uri}/report.html",
        "items": _some_items(refs["preprocess"]),
        "mlflow": {"experiment_id": run.experiment, "run_id": run.id, "page": page},
    }


def _some_items(ref: ArtifactRef) -> list[str]:
    """Ids of a few items, to show how to ask for recommendations."""
    import pyarrow.parquet as pq

    column = pq.read_table(store.fetch(ref) / "items.parquet", columns=["item_id"])["item_id"]
    return [str(item) for item in column.slice(0, 2).to_pylist()]


def _publish(
    experiment: Experiment, summary: Mapping[str, Any], refs: Mapping[str, ArtifactRef], run: TrackedRun
) -> None:
    """Show the result on the parent run in MLflow, and on the version of the model."""
    models.note_evaluation(experiment, summary["model"], refs, run, summary["metrics"])
    run.tags({models.MODEL_OF_RUN_TAG: summary["model"] or "", mlflow_runs.REPORT_TAG: summary["report"]})
