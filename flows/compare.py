"""A comparison as a Prefect flow: which variant follows which, seed by seed. Knows no stage's inside."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import prefect.runtime
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from prorec.flows.configuration.experiments import Parameter, checked
from prorec.flows.configuration.variants import Variants, joined, load_variants
from prorec.tasks import comparison
from prorec.tasks.execution.events import (
    Event,
    Notice,
    PartEnded,
    PartStarted,
    StageEnded,
    StageStarted,
    emit,
    listening,
)
from prorec.tasks.execution.prefect_run import PrefectRun
from prorec.tasks.execution.runner import run_stage
from prorec.tasks.execution.stage import FlowTracking, Stage
from prorec.tasks.local.machine_errors import explained
from prorec.tasks.local.stopping import end_when_asked, stops_kept
from prorec.tasks.registry import models
from prorec.tasks.stages.baselines import measuring, pipeline_of
from prorec.tasks.stages.capacity import expect_capacity
from prorec.tasks.stages.evaluate_two_stream import SIDES
from prorec.tasks.stages.fitting import fitted
from prorec.tasks.stages.preprocess import preprocess
from prorec.tasks.stages.quantize import quantize
from prorec.tasks.stages.start import pinned
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.metrics import measured as figures
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec.tasks.tracking.retries import TrackingAwayError
from prorec.tasks.upkeep.tidy import tidy
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment, left_open
from prorec_core.data.dataset import Dataset
from prorec_core.errors import MachineError, UserError, one_line
from prorec_core.evaluation.variants import (
    Measured,
    compare_variants,
    own_seconds,
)
from prorec_core.fitting import known_values
from prorec_core.metrics.scorers import GENERATOR, label
from prorec_core.reports.comparison.page import table_markdown

_AGAIN = "the same comparison once more; what is finished comes from the cache"
_SECONDS_BETWEEN_TABLES = 60.0
_made: ContextVar[dict[str, ArtifactRef] | None] = ContextVar("made", default=None)


class IncompleteComparisonError(Exception):
    """Some variants failed; `summary` is what the others came to, as `compare` returns it."""

    def __init__(self, summary: dict[str, Any]) -> None:
        self.summary = summary
        super().__init__(f"{len(summary['failed'])} failed: {_reasons(summary['failed'])}")


@flow(
    name="compare",
    description="Variants of one experiment, trained with the same seeds and measured on the same users.",
    flow_run_name="{experiment.name} · comparison",
)
def compare(
    experiment: Parameter = left_open(),  # noqa: B008 Prefect shows the default
    variants: list[str] = ["core"],  # noqa: B006
    seeds: int | list[int] = 3,
    against: str | None = None,
    definitions: Variants | None = None,
) -> dict[str, Any]:
    """Run some variants with some seeds, and hold them against one of them.

    Args:
        experiment: what is varied; its own seed does not count.
        variants: names of variants and groups.
        seeds: the seeds, or how many, from 0.
        against: the variant to hold the others against; by default the full method, or else the first one.
        definitions: more variants and groups.

    Returns:
        `table` (as of `compare_variants`), `failed` (variant, seed, stage, reason each), `report` (URI of the HTML
        page) and `mlflow` (experiment, run and page).

    Raises:
        UserError: a mistake that the user can put right, or every variant failed.
        IncompleteComparisonError: some variants failed; the others are reported.
    """
    end_when_asked()
    experiment = pinned(checked(experiment), PrefectRun.here().tags)
    known = load_variants()
    if definitions is not None:
        known = joined(known, definitions, "definitions")
    plan = known.plan(variants, experiment, seeds, against)
    names, reference, parts = plan.names, plan.reference, list(plan.experiments)

    get_run_logger().info("Left by processes that died: %s", tidy())
    mlflow_experiment = mlflow_runs.experiment_id(experiment.name)
    run = TrackedRun.start(
        mlflow_experiment,
        prefect.runtime.flow_run.name or f"{experiment.name} · comparison",
        tags={**PrefectRun.here().tags, "prorec.comparison": experiment.name},
    )
    page = mlflow_runs.page(mlflow_experiment, run.id)
    get_run_logger().info("MLflow run %s%s", run.id, f" at {page}" if page else "")
    config = {"variants": names, "seeds": plan.seeds, "against": reference, **_settings(known, names)}
    measured: list[Measured] = []
    failed: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    upstream: dict[str, str] = {}
    token = _made.set({})
    try:
        run.parameters({**config, "experiment": known_values(experiment)})
        # A mistake in the data is everyone's: told at once, not once a variant.
        data = _make(preprocess, experiment, run, {})
        dataset = Dataset.load(store.fetch(data))
        experiment = fitted(experiment, data, tell=True)
        run.parameters({"experiment": experiment.model_dump(mode="json")})
        # Once more: only now can be told which variants are the full method itself. One may open what another says.
        plan = known.plan(variants, experiment, seeds, against)
        experiments = {part: [fitted(each, data) for each in own] for part, own in plan.experiments.items()}

        def keep() -> None:
            nonlocal found
            found = compare_variants(
                measured, reference, dataset.sequences, experiment.evaluate.bootstrap_samples, experiment.seed
            )
            for name, about in found["variants"].items():
                about |= {"about": known.variants[name].about, "set": known.settings(name)}
            found["failed"] = failed
            comparison.keep(run, experiment, found, config, upstream)

        place = FlowTracking(experiment_id=mlflow_experiment, run_id=run.id)
        last = time.monotonic()
        for number, (name, seed) in enumerate(parts, start=1):
            title, scorer = f"{name} · seed {seed}", known.variants[name].scorer
            stages = tuple(stage.name for stage in pipeline_of(scorer))
            emit(
                PartStarted(title, stages, number, len(parts), seconds_left(own_seconds(measured), parts[number - 1 :]))
            )
            began = time.monotonic()
            with _stage_at_work() as at_work:
                try:
                    with stops_kept():
                        each, digest = run_variant(name, seed, scorer, _sided(experiments[name, seed]), place)
                except (TrackingAwayError, MemoryError):
                    raise
                except Exception as error:
                    if isinstance(explained(error), MachineError):
                        raise
                    reason = one_line(error)
                    failed.append({"variant": name, "seed": seed, "stage": at_work[-1], "reason": reason})
                    get_run_logger().warning("%s failed in %s", title, at_work[-1], exc_info=error)
                    emit(Notice(f"{title}: failed in {at_work[-1]}: {reason}"))
                    continue
                finally:
                    gc.collect()
            measured.append(each)
            upstream[f"{name}@{seed}"] = digest
            emit(PartEnded(f"{title}: {_outcome(each)}, {time.monotonic() - began:.0f} s"))
            if number < len(parts) and (name == names[-1] or time.monotonic() - last > _SECONDS_BETWEEN_TABLES):
                keep()
                last = time.monotonic()
        if not measured:
            raise UserError(f"every variant failed: {_reasons(failed)}")
        keep()
        create_markdown_artifact(
            key=f"comparison-{experiment.name.replace('_', '-')}",
            markdown=table_markdown(found),
            description=f"Variants of the experiment {experiment.name}",
        )
    except BaseException as error:
        run.finish(*mlflow_runs.how_it_ended(error))
        raise
    finally:
        _made.reset(token)
    run.finish("FAILED" if failed else "FINISHED", _reasons(failed))
    summary = {
        "table": found,
        "failed": failed,
        "report": f"{run.artifact_uri}/report.html",
        "mlflow": {"experiment_id": run.experiment, "run_id": run.id, "page": page},
    }
    if failed:
        raise IncompleteComparisonError(summary)
    return summary


@flow(name="variant", description="One variant of an experiment with one seed.", flow_run_name="{name} · seed {seed}")
def run_variant(
    name: str, seed: int, scorer: str, experiments: dict[str, Experiment], parent: FlowTracking
) -> tuple[Measured, str]:
    """One variant with one seed, as an MLflow run of its own below the comparison's.

    Args:
        name: the variant's name.
        seed: of its training.
        scorer: what recommends, one of `standing`.
        experiments: the variant's, under ""; and those of its streams, by side.
        parent: the comparison's run.

    Returns:
        What was measured, and the digest of the evaluation.
    """
    run = TrackedRun.start(
        parent.experiment_id,
        f"{name} · seed {seed}",
        parent=parent.run_id,
        tags={**PrefectRun.here().tags, mlflow_runs.VARIANT_TAG: name, models.SEED_TAG: str(seed)},
    )
    try:
        run.parameters(experiments[""].model_dump(mode="json"))
        refs = _artifacts(scorer, experiments, run)
        links = {"run_id": run.id, "page": mlflow_runs.page(parent.experiment_id, run.id)}
        measured = comparison.gather(name, seed, scorer, refs, links)
        if scorer == GENERATOR:
            uri = models.version_of(refs["train_generator"])
            models.note_evaluation(experiments[""], uri, refs, run, measured.metrics)
        else:
            run.metrics(figures(measured.metrics))
    except BaseException as error:
        run.finish(*mlflow_runs.how_it_ended(error))
        raise
    run.finish()
    stages = pipeline_of(scorer)
    return measured, refs[stages[measuring(stages)].name].digest


def _artifacts(scorer: str, experiments: Mapping[str, Experiment], run: TrackedRun) -> dict[str, ArtifactRef]:
    """A variant's artifacts by stage, those of its streams by "stage@side"."""
    stages = pipeline_of(scorer)
    place = measuring(stages)
    sides = {side: each for side, each in experiments.items() if side or len(experiments) == 1}
    refs: dict[str, ArtifactRef] = {}
    for side, experiment in sides.items():
        of_side: dict[str, ArtifactRef] = {}
        for stage in stages[:place]:
            of_side[stage.name] = _make(stage, experiment, run, of_side, side)
            if stage.name == "preprocess" and quantize in stages:
                # Of all streams at once: they share the data, and no training is to be in vain.
                for each in sides.values():
                    expect_capacity(each, of_side[stage.name])
        refs |= {f"{name}@{side}" if side and name != "preprocess" else name: ref for name, ref in of_side.items()}
    for stage in stages[place:]:
        refs[stage.name] = _make(stage, experiments[""], run, refs)
    return refs


def seconds_left(own: Mapping[tuple[str, int], float], todo: Sequence[tuple[str, int]]) -> float | None:
    """About how long the rest takes, from what each variant needed with earlier seeds, or variants in the mean.

    Args:
        own: seconds by variant and seed, as of `own_seconds`.
        todo: variants and seeds that are left.
    """
    if not own:
        return None
    by_variant: dict[str, list[float]] = {}
    for (variant, _), seconds in own.items():
        by_variant.setdefault(variant, []).append(seconds)
    means = {variant: sum(values) / len(values) for variant, values in by_variant.items()}
    usual = sum(means.values()) / len(means)
    return sum(means.get(variant, usual) for variant, _ in todo)


def _sided(experiments: Sequence[Experiment]) -> dict[str, Experiment]:
    """A variant's experiment under "", and those of its streams by side."""
    return dict(zip(("", *SIDES), experiments, strict=False))


def _settings(known: Variants, names: list[str]) -> dict[str, Any]:
    return {f"variant.{name}": known.variants[name].model_dump(exclude={"about"}) for name in names}


def _make(
    stage: Stage, experiment: Experiment, run: TrackedRun, refs: Mapping[str, ArtifactRef], side: str = ""
) -> ArtifactRef:
    """A stage's artifact, noted on the run; looked for only once where several variants of this process share it."""
    made = _made.get()
    assert made is not None
    key = stage.key(experiment, {name: refs[name] for name in stage.reads})
    if key in made:
        emit(StageStarted(stage.name))
        emit(StageEnded(made[key], cached=True, seconds=0.0))
    else:
        place = FlowTracking(experiment_id=run.experiment, run_id=run.id, again=_AGAIN)
        made[key] = run_stage(stage, experiment, place, refs)
    # At once, so that what a run reads is known while it goes on.
    run.tags(
        models.stage_tags({f"{stage.name}.{side}" if side and stage.name != "preprocess" else stage.name: made[key]})
    )
    return made[key]


@contextmanager
def _stage_at_work() -> Iterator[list[str]]:
    """The names of the stages that start while the context lasts, the latest last."""
    started = [""]

    def handle(event: Event) -> None:
        if isinstance(event, StageStarted):
            started.append(event.stage)

    with listening(handle):
        yield started


def _reasons(failed: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{each['variant']}, seed {each['seed']}: {each['reason']}" for each in failed)


def _outcome(each: Measured) -> str:
    measured = each.metrics["test"][each.representative]
    return (
        f"NDCG@10 {measured['ndcg_at_10']:.4f}, Recall@10 {measured['recall_at_10']:.4f} ({label(each.representative)})"
    )
