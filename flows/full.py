"""The whole pipeline as a Prefect flow: which stage follows which. Knows no stage's inside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import prefect.runtime
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from prorec_core.artifacts import ArtifactRef, read_json
from prorec_core.config import Experiment
from tasks import store, tracking
from tasks.align import align
from tasks.embed_text import embed_text
from tasks.evaluate import evaluate
from tasks.events import StageEnded, listening
from tasks.metrics import numbers
from tasks.preprocess import preprocess
from tasks.quantize import quantize
from tasks.stage import FlowTracking, Stage
from tasks.tracking import TrackedRun
from tasks.train_collaborative import train_collaborative
from tasks.train_generator import train_generator

PIPELINE: tuple[Stage, ...] = (
    preprocess,
    embed_text,
    train_collaborative,
    align,
    quantize,
    train_generator,
    evaluate,
)
"""The stages, each after all those that it reads."""

_forced: ContextVar[frozenset[str]] = ContextVar("forced", default=frozenset())


@contextmanager
def forcing(stages: frozenset[str]) -> Iterator[None]:
    """Have flows that run in this context make these stages anew, whatever the cache holds."""
    token = _forced.set(stages)
    try:
        yield
    finally:
        _forced.reset(token)


@flow(
    name="prorec",
    description="From interactions and texts to recommendations by generated codes.",
    flow_run_name="{experiment.name} · seed {experiment.seed}",
)
def prorec(experiment: Experiment = Experiment()) -> dict[str, Any]:  # noqa: B008 Prefect shows the default
    """Run all stages of an experiment.

    Returns:
        `stages` (name, cached, seconds, run_id, digest, uri each), `metrics`, `model` (URI), `mlflow` (experiment,
        run and page), `report` (URI of the HTML page) and `items` (some ids).

    Raises:
        UserError: a mistake that the user can put right.
    """
    close_what_died()
    mlflow_experiment = tracking.experiment_id(experiment.name)
    flow_run = str(prefect.runtime.flow_run.id or "")
    run = TrackedRun.start(
        mlflow_experiment,
        prefect.runtime.flow_run.name or experiment.name,
        tags={"prefect.flow_run_id": flow_run, "prorec.experiment": experiment.name},
    )
    page = tracking.page(mlflow_experiment, run.id)
    get_run_logger().info("MLflow run %s%s", run.id, f" at {page}" if page else "")
    ended: list[StageEnded] = []
    try:
        run.parameters(experiment.model_dump(mode="json"))
        refs: dict[str, ArtifactRef] = {}
        place = FlowTracking(experiment_id=mlflow_experiment, run_id=run.id)
        with listening(lambda event: ended.append(event) if isinstance(event, StageEnded) else None):
            for stage in PIPELINE:
                refs[stage.name] = stage.run(experiment, place, refs, force=stage.name in _forced.get())
        summary = _summary(ended, refs, run, page)
        _publish(experiment, summary, refs, run)
    except BaseException as error:
        run.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    run.finish()
    return summary


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
        "model": store.model_uri(refs["train_generator"]),
        "report": f"{refs['evaluate'].uri}/report.html",
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
    """Show the result where people look: on the parent run in MLflow and as an artifact in Prefect."""
    measured = summary["metrics"]
    run.metrics(numbers({split: measured[split] for split in ("test", "validation") if split in measured}))
    run.tags(
        {
            **{f"prorec.{name}.run_id": ref.run_id for name, ref in refs.items()},
            **{f"prorec.{name}.digest": ref.digest for name, ref in refs.items()},
            "prorec.model": summary["model"] or "",
            "prorec.report": summary["report"],
        }
    )
    table = (store.fetch(refs["evaluate"]) / "result.md").read_text(encoding="utf-8")
    create_markdown_artifact(
        key=f"result-{experiment.name.replace('_', '-')}",
        markdown=_markdown(experiment, summary, table, run),
        description=f"Result of the experiment {experiment.name}",
    )


def _markdown(experiment: Experiment, summary: Mapping[str, Any], table: str, run: TrackedRun) -> str:
    def linked(run_id: str) -> str:
        page = tracking.page(run.experiment, run_id)
        return f"[{run_id}]({page})" if page else f"`{run_id}`"

    rows = []
    for stage in summary["stages"]:
        took = "cached" if stage["cached"] else f"{stage['seconds']:.1f} s"
        rows.append(f"| {stage['name']} | {took} | {linked(stage['run_id'])} | `{stage['digest'][:12]}` |")
    return "\n".join(
        [
            f"# {experiment.name}, seed {experiment.seed}",
            "",
            table,
            "",
            f"MLflow run: {linked(run.id)}",
            "",
            "| stage | time | MLflow run | digest |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )


def close_what_died() -> None:
    """Close what killed processes left open: their runs in MLflow, and their flow runs in Prefect."""
    current = str(prefect.runtime.flow_run.id or "")
    for run in tracking.close_dead_runs():
        flow_run = run.data.tags.get("prefect.flow_run_id", "")
        get_run_logger().warning("Closed MLflow run %s of a process that died", run.info.run_id)
        if flow_run and flow_run != current:
            _close_flow_run(flow_run)


def _close_flow_run(flow_run: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        found = client.read_flow_run(UUID(flow_run))
        if found.state is not None and found.state.is_running():
            client.set_flow_run_state(found.id, Crashed(message="Its process died."), force=True)
