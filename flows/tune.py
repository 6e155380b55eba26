"""A tuning as a Prefect flow: trial by trial other values, up to the stage that measures. Knows no stage's inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from prorec.flows.configuration.experiments import changed
from prorec.flows.configuration.spaces import Plan, Space, Value, as_yaml, flags, plan
from prorec.flows.local.members import Members, expect_members, members
from prorec.flows.trial import AGAIN, name_of, run_trial, side_by_side, trying
from prorec.tasks.execution.events import (
    Notice,
    PartEnded,
    PartStarted,
    emit,
)
from prorec.tasks.execution.prefect_run import PrefectRun
from prorec.tasks.execution.runner import run_stage
from prorec.tasks.execution.stage import FlowTracking
from prorec.tasks.local.stopping import end_when_asked, stops_kept
from prorec.tasks.stages.fitting import fitted
from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.stages.preprocess import source_digest
from prorec.tasks.stages.start import pinned
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec.tasks.tuning import results
from prorec.tasks.tuning.results import OBJECTIVE
from prorec.tasks.tuning.study import Attempt, Study, best_of, open_study
from prorec.tasks.upkeep.tidy import tidy_first
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment
from prorec_core.errors import UserError, one_line
from prorec_core.fitting import known_values, open_fields
from prorec_core.reports.tuning import table_markdown
from prorec_core.stages.ahead import expect_possible


@flow(
    name="tune",
    description="Values of an experiment's fields, tried out and measured on validation users.",
    flow_run_name="{experiment.name} · tuning of {space.name}",
)
def tune(
    experiment: Experiment,
    space: Space,
    trials: int,
    stage: str | None = None,
    study: str | None = None,
    prune: bool = True,
    parallel: Annotated[int, Field(ge=1, le=256)] = 1,
) -> dict[str, Any]:
    """Try values of some fields until a study has as many trials as wanted.

    Args:
        experiment: what is tuned.
        space: the fields and their values.
        trials: how many trials the study is to have in the end, those of earlier runs included.
        stage: the stage whose best epoch's validation NDCG@10 counts; by default the earliest on which all fields
            have an effect.
        study: name of the study; by default the experiment's and the space's.
        prune: whether trials that stay behind the median of the others end early.
        parallel: how many trials run at a time, each in a process of its own; 1: here, one by one.

    Returns:
        `study` (its name), `stage`, `trials` (as of `Study.trials`), `best` (one of them), `as_it_stands` (the fields'
        values in the experiment), `set` (the best values as arguments of `--set`), `yaml`, `importances` and `mlflow`
        (experiment, run and page).

    Raises:
        UserError: a mistake that the user can put right, or no trial came to its end.
    """
    end_when_asked()
    experiment = pinned(experiment, PrefectRun.here().tags)
    planned = plan(space, experiment, stage)
    expect_members(parallel, experiment)
    name = study or planned.study
    get_run_logger().info("Left by processes that died: %s", tidy_first())
    mlflow_experiment = mlflow_runs.experiment_id(experiment.name)
    run = TrackedRun.start(mlflow_experiment, f"tune {name}", tags={**PrefectRun.here().tags, results.STUDY_TAG: name})
    try:
        page = mlflow_runs.page(mlflow_experiment, run.id)
        get_run_logger().info("MLflow run %s%s", run.id, f" at {page}" if page else "")
        ranges = {field: _range_text(space, field) for field in space.ranges}
        run.parameters({"study": name, "stage": planned.stage, "trials": trials, "range": ranges})
        run.parameters({"experiment": known_values(experiment)})
        given, data = experiment, None
        if open_fields(experiment):
            place = FlowTracking(experiment_id=run.experiment, run_id=run.id, again=AGAIN)
            data = run_stage(STAGES["preprocess"], experiment, place, {})
            experiment = fitted(experiment, data, tell=True)
            run.parameters({"experiment": experiment.model_dump(mode="json")})
            planned = plan(space, experiment, stage)
        settings = planned.settings(source_digest(experiment.data))
        with open_study(name, settings, planned.distributions(), experiment.seed, prune=prune) as opened:
            results.adopt(opened.trials(), run)
            with members(parallel, experiment) as workers:
                _try_all(planned, opened, trials, run, workers)
            ended = opened.trials()
            best = best_of(ended)
            if best is None:
                reasons = dict.fromkeys(each["reason"] or "pruned" for each in ended)
                raise UserError(f"no trial came to its end: {'; '.join(reasons)}")
            if not best["value"]:
                emit(Notice("NDCG@10 on validation is 0 in every trial: the best one is no better than the others"))
            values = {
                **best["values"],
                **({} if data is None else numbers_beside(given, planned, best["values"], data)),
            }
            in_yaml = as_yaml(values)
            results.keep(run, opened, list(space.ranges), in_yaml)
            importances = opened.importances()
        create_markdown_artifact(
            key=f"tuning-{experiment.name.replace('_', '-')}",
            markdown=table_markdown(ended),
            description=f"Trials of the study {name}",
        )
    except BaseException as error:
        run.finish(*mlflow_runs.how_it_ended(error))
        raise
    run.finish()
    return {
        "study": name,
        "stage": planned.stage,
        "trials": ended,
        "best": dict(best),
        "as_it_stands": planned.as_it_stands,
        "set": flags(values),
        "yaml": in_yaml,
        "importances": importances,
        "mlflow": {"experiment_id": run.experiment, "run_id": run.id, "page": page},
    }


def _range_text(space: Space, field: str) -> str:
    found = space.ranges[field].model_dump(exclude_defaults=True)
    return ", ".join(f"{name} {value}" for name, value in found.items())


def numbers_beside(given: Experiment, planned: Plan, best: Mapping[str, Value], data: ArtifactRef) -> dict[str, Any]:
    """What an experiment with the best values would find otherwise in its data than they were measured with.

    Every trial has the numbers that follow from the data for the experiment as it stands, and some of them follow from
    others: epochs from the size of a batch, a rate from a width.

    Args:
        given: the experiment, with what it leaves to its data.
        planned: the same with the numbers that it has as it stands.
        best: the values, by dotted field.
        data: what `preprocess` made of the data.
    """
    there = fitted(planned.experiment(best), data).model_dump()
    alone = fitted(changed(given, best, ""), data).model_dump()
    by_field = {field: field.split(".") for field in open_fields(given) if field not in best}
    return {
        field: there[section][name]
        for field, (section, name) in by_field.items()
        if there[section][name] != alone[section][name]
    }


def _try_all(planned: Plan, study: Study, trials: int, run: TrackedRun, members: Members) -> None:
    """Run trials until the study has as many as wanted, or nothing new is found to try."""
    if study.ended >= trials:
        return
    shared: dict[str, ArtifactRef] = {}
    place = FlowTracking(experiment_id=run.experiment, run_id=run.id, again=AGAIN)
    for name in planned.shared:
        shared[name] = run_stage(STAGES[name], planned.base, place, shared)
        if name == "preprocess" and "quantize" in planned.shared:
            expect_possible(planned.base, store.fetch(shared[name]))

    def begin(at_work: int) -> tuple[Attempt, Experiment] | None:
        while (ended := study.ended) + at_work < trials:
            attempt = study.next(planned.as_it_stands)
            if attempt is None:
                if not at_work:
                    emit(Notice(f"nothing new is left to try after {ended} trials"))
                return None
            earlier = study.trials()
            left = seconds_left(earlier, trials - ended - at_work)
            left = None if left is None else left / members.count
            name = name_of(attempt) if members.beside else ""
            title = f"{name} · {_title(attempt, earlier)}" if name else _title(attempt, earlier)
            emit(PartStarted(title, planned.varied, ended + at_work + 1, trials, left, beside=name))
            try:
                # A choice may be to leave a number to the data.
                return attempt, fitted(planned.experiment(attempt.values), shared["preprocess"])
            except UserError as error:
                attempt.fail(one_line(error))
                emit(PartEnded(f"{name_of(attempt)}: {one_line(error)}", name, failed=True))
        return None

    def ended(attempt: Attempt, outcome: str) -> None:
        emit(PartEnded(f"{name_of(attempt)}: {outcome}", name_of(attempt)))
        if best := best_of(study.trials()):
            run.metrics({f"best_{OBJECTIVE}": best["value"]}, attempt.place)

    def left(attempt: Attempt, reason: str) -> None:
        then = "it is tried again" if study.recover(attempt) else "it had ended before"
        emit(PartEnded(f"{name_of(attempt)}: {reason}; {then}", name_of(attempt), failed=True))

    if members.beside:
        side_by_side(members, planned, shared, place, begin, ended, left)
        return
    while begun := begin(0):
        attempt, mine = begun
        with trying(attempt), stops_kept():
            outcome = run_trial(attempt.place, attempt.values, mine, planned.varied, shared, place)
        ended(attempt, outcome)


def _title(attempt: Attempt, earlier: Sequence[Mapping[str, Any]]) -> str:
    tried = ", ".join(flags(attempt.values))
    best = best_of(earlier)
    return f"{tried} · best {best['value']:.4f} (trial {best['trial']})" if best else tried


def seconds_left(trials: Sequence[Mapping[str, Any]], todo: int) -> float | None:
    """About how long some more trials take, from those that ended; None where none did.

    Args:
        trials: as of `Study.trials`.
        todo: how many are to come.
    """
    known = [each["seconds"] for each in trials if each["seconds"] is not None]
    return todo * sum(known) / len(known) if known else None
