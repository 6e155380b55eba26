"""A comparison as a Prefect flow: which variant follows which, seed by seed. Knows no stage's inside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import prefect.runtime
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from prorec.flows.configuration.experiments import Parameter, checked
from prorec.flows.configuration.given import expect_lists
from prorec.flows.configuration.variants import Variants, joined, load_variants
from prorec.flows.local.members import expect_members, members
from prorec.flows.variant import make, one_by_one, sharing, side_by_side
from prorec.tasks import comparison
from prorec.tasks.execution.events import PartEnded, PartStarted, emit
from prorec.tasks.execution.prefect_run import PrefectRun
from prorec.tasks.execution.stage import FlowTracking
from prorec.tasks.local.stopping import end_when_asked
from prorec.tasks.stages.baselines import pipeline_of
from prorec.tasks.stages.fitting import fitted
from prorec.tasks.stages.preprocess import preprocess
from prorec.tasks.stages.start import pinned
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec.tasks.upkeep.tidy import tidy
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment, left_open
from prorec_core.data.dataset import Dataset
from prorec_core.errors import UserError
from prorec_core.evaluation.variants import (
    Measured,
    compare_variants,
    own_seconds,
)
from prorec_core.fitting import known_values
from prorec_core.metrics.scorers import label
from prorec_core.reports.comparison.page import table_markdown

_SECONDS_BETWEEN_TABLES = 60.0


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
    parallel: Annotated[int, Field(ge=1, le=256)] = 1,
) -> dict[str, Any]:
    """Run some variants with some seeds, and hold them against one of them.

    Args:
        experiment: what is varied; its own seed does not count.
        variants: names of variants and groups.
        seeds: the seeds, or how many, from 0.
        against: the variant to hold the others against; by default `prorec`, or else the first one.
        definitions: more variants and groups.
        parallel: how many variants and seeds run at a time, each in a process of its own; 1: here, one by one.

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
    expect_members(parallel, experiment)
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
    measured: dict[tuple[str, int], Measured] = {}
    failed: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    upstream: dict[str, str] = {}
    try:
        with sharing(), members(parallel, experiment) as workers:
            run.parameters({**config, "experiment": known_values(experiment)})
            # A mistake in the data is everyone's: told at once, not once a variant.
            data = make(preprocess, experiment, run, {})
            dataset = Dataset.load(store.fetch(data))
            experiment = fitted(experiment, data, tell=True)
            run.parameters({"experiment": experiment.model_dump(mode="json")})
            # Once more: only now can be told which variants change nothing. One may open what another says.
            plan = known.plan(variants, experiment, seeds, against)
            _expect_same_targets(plan.experiments, experiment, data, run)
            expect_lists(plan, dataset)
            numbers = {part: [fitted(each, data) for each in own] for part, own in plan.experiments.items()}
            plan = replace(plan, experiments=numbers)

            # Whichever seeds of a variant fail, it keeps its place in the table.
            by_variant = sorted(parts, key=lambda part: names.index(part[0]))

            def keep() -> None:
                nonlocal found
                found = compare_variants(
                    [measured[part] for part in by_variant if part in measured],
                    reference,
                    dataset.sequences,
                    experiment.evaluate.bootstrap_samples,
                    experiment.seed,
                )
                for name, about in found["variants"].items():
                    about.update(known.described(name))
                    about["remarks"] += known.remarks(name, about["seeds"])
                found["failed"] = failed
                comparison.keep(run, experiment, found, config, dict(sorted(upstream.items())))

            place = FlowTracking(experiment_id=mlflow_experiment, run_id=run.id)
            last = time.monotonic()
            begun: dict[tuple[str, int], float] = {}

            def begin(name: str, seed: int) -> str:
                begun[name, seed] = time.monotonic()
                stages = tuple(stage.name for stage in pipeline_of(known.scorer_of(name)))
                todo = [part for part in parts if part not in begun or part == (name, seed)]
                left = seconds_left(own_seconds(list(measured.values())), todo)
                title, left = _title(name, seed), None if left is None else left / workers.count
                emit(PartStarted(title, stages, len(begun), len(parts), left, beside=title if workers.beside else ""))
                return title

            def succeeded(name: str, seed: int, each: Measured, digest: str) -> None:
                nonlocal last
                measured[name, seed], upstream[f"{name}@{seed}"] = each, digest
                took = time.monotonic() - begun[name, seed]
                title = _title(name, seed)
                emit(PartEnded(f"{title}: {_outcome(each)}, {took:.0f} s", title))
                complete = all(part in measured for part in parts if part[1] == seed)
                if len(measured) < len(parts) and (complete or time.monotonic() - last > _SECONDS_BETWEEN_TABLES):
                    keep()
                    last = time.monotonic()

            def fell(name: str, seed: int, stage: str, reason: str, error: Exception | None = None) -> None:
                failed.append({"variant": name, "seed": seed, "stage": stage, "reason": reason})
                failed.sort(key=lambda each: parts.index((each["variant"], each["seed"])))
                title = _title(name, seed)
                get_run_logger().warning("%s failed in %s: %s", title, stage, reason, exc_info=error)
                where = f" in {stage}" if stage else ""
                emit(PartEnded(f"{title}: failed{where}: {reason}", title, failed=True))

            run_parts = partial(side_by_side, workers) if workers.beside else one_by_one
            run_parts(plan, known, place, begin, succeeded, fell)
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


def _expect_same_targets(
    experiments: Mapping[tuple[str, int], Sequence[Experiment]], base: Experiment, data: ArtifactRef, run: TrackedRun
) -> None:
    """Refuse a variant that goes on from a model of its own where that was trained on some of what is measured.

    Raises:
        UserError: it names the variant.
    """
    for (name, _), own in experiments.items():
        for each in own:
            if each.start_from != base.start_from and make(preprocess, each, run, {}).digest != data.digest:
                raise UserError(
                    "other targets are left out for what it goes on from than for the comparison",
                    place=f"variant {name}: start_from",
                    cure="Give the experiment that start_from, and its variants none of their own",
                )


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


def _title(name: str, seed: int) -> str:
    return f"{name} · seed {seed}"


def _settings(known: Variants, names: list[str]) -> dict[str, Any]:
    found = {}
    for name in names:
        recommends = {"scorer": known.scorer_of(name), "streams": known.streams_of(name)}
        found[f"variant.{name}"] = known.variants[name].model_dump(exclude={"about"}) | recommends
    return found


def _reasons(failed: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{each['variant']}, seed {each['seed']}: {each['reason']}" for each in failed)


def _outcome(each: Measured) -> str:
    measured = each.metrics["test"][each.representative]
    return (
        f"NDCG@10 {measured['ndcg_at_10']:.4f}, Recall@10 {measured['recall_at_10']:.4f} ({label(each.representative)})"
    )
