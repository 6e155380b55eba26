"""The variants of a comparison, one by one or side by side: which stage follows which. Knows no stage's inside."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from prefect import flow, get_run_logger
from pydantic import BaseModel

from prorec.flows.configuration.variants import Plan, Variants
from prorec.flows.local.crew import Job, Outcome
from prorec.flows.local.members import Members
from prorec.tasks import comparison
from prorec.tasks.execution.events import Event, StageEnded, StageStarted, emit, listening
from prorec.tasks.execution.prefect_run import PrefectRun, announce, environment, run_below
from prorec.tasks.execution.runner import run_stage
from prorec.tasks.execution.stage import FlowTracking, Stage
from prorec.tasks.local.machine_errors import explained
from prorec.tasks.local.stopping import stops_kept
from prorec.tasks.registry import models
from prorec.tasks.stages.baselines import measuring, pipeline_of
from prorec.tasks.stages.evaluate_two_stream import SIDES
from prorec.tasks.stages.quantize import quantize
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.metrics import measured as figures
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec.tasks.tracking.retries import TrackingAwayError
from prorec.tasks.upkeep.tidy import tidy_first
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment
from prorec_core.errors import MachineError, with_line
from prorec_core.evaluation.variants import Measured
from prorec_core.metrics.scorers import GENERATOR
from prorec_core.stages.ahead import expect_possible

AGAIN = "the same comparison once more; what is finished comes from the cache"
_made: ContextVar[dict[str, ArtifactRef] | None] = ContextVar("made", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Have variants of this process that share a stage look for its artifact once."""
    token = _made.set({})
    try:
        yield
    finally:
        _made.reset(token)


Begin = Callable[[str, int], str]
"""Called with a variant and a seed that begin; returns their title."""

Succeeded = Callable[[str, int, Measured, str], None]
"""Called with a variant, a seed, what was measured, and the digest of the evaluation."""

Fell = Callable[..., None]
"""Called with a variant, a seed, the stage that failed, the reason, and the error itself where it is at hand."""


def one_by_one(
    plan: Plan, known: Variants, place: FlowTracking, begin: Begin, succeeded: Succeeded, fell: Fell
) -> None:
    """Run all variants with all seeds in this process."""
    for name, seed in plan.experiments:
        begin(name, seed)
        scorer = known.scorer_of(name)
        with _stage_at_work() as at_work:
            try:
                with stops_kept():
                    each, refs = run_variant(name, seed, scorer, _sided(plan.experiments[name, seed]), place)
            except (TrackingAwayError, MemoryError):
                raise
            except Exception as error:
                if isinstance(explained(error), MachineError):
                    raise
                fell(name, seed, at_work[-1], with_line(error), error)
                continue
            finally:
                gc.collect()
        succeeded(name, seed, each, _digest(scorer, refs))


def side_by_side(
    members: Members, plan: Plan, known: Variants, place: FlowTracking, begin: Begin, succeeded: Succeeded, fell: Fell
) -> None:
    """Run all variants with all seeds in other processes; they share the cache, and no stage is made twice."""
    parts = iter(plan.experiments)
    at_work: dict[str, tuple[str, int]] = {}

    def following() -> Job | None:
        if (part := next(parts, None)) is None:
            return None
        name, seed = part
        order = VariantOrder(
            name=name,
            seed=seed,
            scorer=known.scorer_of(name),
            experiments=_sided([members.mine(each) for each in plan.experiments[part]]),
            parent=place,
            flow_run=announce(run_variant),
        )
        title = begin(name, seed)
        at_work[title] = part
        return Job(title, {"do": "variant", "order": order.model_dump(mode="json")})

    def ended(job: Job, outcome: Outcome) -> None:
        name, seed = at_work.pop(job.name)
        if outcome.died:
            get_run_logger().info("Left by processes that died: %s", tidy_first([outcome.sign]))
        if outcome.result is None:
            fell(name, seed, outcome.stage, outcome.reason)
            return
        scorer = known.scorer_of(name)
        refs = {stage: ArtifactRef.model_validate(ref) for stage, ref in outcome.result["refs"].items()}
        succeeded(name, seed, comparison.gather(name, seed, scorer, refs, outcome.result["run"]), _digest(scorer, refs))

    with members.crew(len(plan.experiments), environment()) as crew:
        crew.work(following, ended)


class VariantOrder(BaseModel):
    """What another process needs to run a variant: the arguments of `run_variant`, and where Prefect shows it."""

    name: str
    seed: int
    scorer: str
    experiments: dict[str, Experiment]
    parent: FlowTracking
    flow_run: str


def variant_job(order: Mapping[str, Any], _: object) -> dict[str, Any]:
    """Run a variant for another process; returns its artifacts, and where it can be looked at."""
    wanted = VariantOrder.model_validate(order["order"])
    if _made.get() is None:
        _made.set({})  # for as long as the process lives
    arguments = {name: getattr(wanted, name) for name in ("name", "seed", "scorer", "experiments", "parent")}
    try:
        each, refs = run_below(run_variant, arguments, wanted.flow_run)
    finally:
        gc.collect()
    return {"refs": {name: ref.model_dump() for name, ref in refs.items()}, "run": dict(each.run)}


@flow(name="variant", description="One variant of an experiment with one seed.", flow_run_name="{name} · seed {seed}")
def run_variant(
    name: str, seed: int, scorer: str, experiments: dict[str, Experiment], parent: FlowTracking
) -> tuple[Measured, dict[str, ArtifactRef]]:
    """One variant with one seed, as an MLflow run of its own below the comparison's.

    Args:
        name: the variant's name.
        seed: of its training.
        scorer: what recommends, one of `standing`.
        experiments: the variant's, under ""; and those of its streams, by side.
        parent: the comparison's run.

    Returns:
        What was measured, and its artifacts as of `_artifacts`.
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
            models.note_evaluation(experiments[""], uri, refs, run, measured.metrics, name)
        else:
            run.metrics(figures(measured.metrics))
    except BaseException as error:
        run.finish(*mlflow_runs.how_it_ended(error))
        raise
    run.finish()
    return measured, refs


def _digest(scorer: str, refs: Mapping[str, ArtifactRef]) -> str:
    stages = pipeline_of(scorer)
    return refs[stages[measuring(stages)].name].digest


def _artifacts(scorer: str, experiments: Mapping[str, Experiment], run: TrackedRun) -> dict[str, ArtifactRef]:
    """A variant's artifacts by stage, those of its streams by "stage@side"."""
    stages = pipeline_of(scorer)
    place = measuring(stages)
    sides = {side: each for side, each in experiments.items() if side or len(experiments) == 1}
    refs: dict[str, ArtifactRef] = {}
    for side, experiment in sides.items():
        of_side: dict[str, ArtifactRef] = {}
        for stage in stages[:place]:
            of_side[stage.name] = make(stage, experiment, run, of_side, side)
            if stage.name == "preprocess" and quantize in stages and not refs:
                # Of all streams at once: they share the data, and no training is to be in vain.
                for each in sides.values():
                    expect_possible(each, store.fetch(of_side[stage.name]))
        refs |= {f"{name}@{side}" if side and name != "preprocess" else name: ref for name, ref in of_side.items()}
    for stage in stages[place:]:
        refs[stage.name] = make(stage, experiments[""], run, refs)
    return refs


def _sided(experiments: Sequence[Experiment]) -> dict[str, Experiment]:
    """A variant's experiment under "", and those of its streams by side."""
    return dict(zip(("", *SIDES), experiments, strict=False))


def make(
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
        place = FlowTracking(experiment_id=run.experiment, run_id=run.id, again=AGAIN)
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
