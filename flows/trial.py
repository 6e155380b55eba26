"""A trial of a tuning, in this process or in another one than the study's. Knows no stage's inside."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from prefect import flow, get_run_logger
from pydantic import BaseModel

from prorec.flows.configuration.spaces import Plan, Value
from prorec.flows.local.crew import Job, Outcome
from prorec.flows.local.members import Members
from prorec.tasks.execution.events import Event, StageProgress, StageStoppedError, listening
from prorec.tasks.execution.prefect_run import PrefectRun, announce, environment, run_below
from prorec.tasks.execution.runner import run_stage
from prorec.tasks.execution.stage import FlowTracking
from prorec.tasks.registry import models
from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec.tasks.tuning.results import OBJECTIVE
from prorec.tasks.tuning.study import Attempt
from prorec.tasks.upkeep.tidy import tidy_first
from prorec_core.artifacts import ArtifactRef, read_json
from prorec_core.config import Experiment
from prorec_core.errors import MachineError, UserError, one_line
from prorec_core.progress import duration

AGAIN = "the same tuning once more; trials that ended are kept, and a training that was stopped goes on"
_TRIES = 3
"""Processes of one trial that may die before the tuning ends."""
_attempt: ContextVar[Telling | None] = ContextVar("attempt", default=None)


class Telling(Protocol):
    """What a trial tells the study; see `Attempt`."""

    def report(self, value: float, epoch: int) -> bool: ...

    def note(self, run_id: str, seconds: float) -> None: ...

    def complete(self, values: Mapping[int, float]) -> float: ...

    def prune(self) -> None: ...

    def fail(self, reason: str) -> None: ...


@contextmanager
def trying(attempt: Telling) -> Iterator[None]:
    """Have this be the trial at work while the context lasts."""
    token = _attempt.set(attempt)
    try:
        yield
    finally:
        _attempt.reset(token)
        gc.collect()


def name_of(attempt: Attempt) -> str:
    return f"trial {attempt.place}"


@flow(name="trial", description="One trial of a tuning.", flow_run_name="trial {number}")
def run_trial(
    number: int,
    values: dict[str, Value],
    experiment: Experiment,
    stages: tuple[str, ...],
    shared: dict[str, ArtifactRef],
    parent: FlowTracking,
) -> str:
    """The trial at work, as an MLflow run of its own below the tuning's; told to the study as it goes.

    Args:
        number: which trial it is.
        values: what it tries.
        experiment: with these values.
        stages: what is to be made; the last one measures.
        shared: the artifacts of the stages before them.
        parent: the tuning's run.

    Returns:
        What came of it, in words.
    """
    attempt = _attempt.get()
    assert attempt is not None
    began = time.monotonic()
    run = TrackedRun.start(
        parent.experiment_id,
        f"trial {number}",
        parent=parent.run_id,
        # What it registers is made in passing, as what a comparison's variants register is.
        tags={**PrefectRun.here().tags, mlflow_runs.VARIANT_TAG: f"trial-{number}"},
    )
    attempt.note(run.id, 0.0)

    def end(status: str = "FINISHED", reason: str = "") -> None:
        run.finish(status, reason)
        attempt.note(run.id, time.monotonic() - began)

    def handle(event: Event) -> None:
        if not isinstance(event, StageProgress) or event.stage != stages[-1]:
            return
        step, value = event.progress.step, event.progress.metrics.get(OBJECTIVE)
        if value is None:
            return
        run.metrics({OBJECTIVE: value}, step)
        if attempt.report(value, step) and step < event.progress.total:
            raise StageStoppedError(f"pruned after epoch {step}: its best NDCG@10 so far is behind other trials'")

    try:
        run.parameters({"tuned": values})
        run.parameters(experiment.model_dump(mode="json"))
        refs = dict(shared)
        place = FlowTracking(experiment_id=run.experiment, run_id=run.id, again=AGAIN)
        with listening(handle):
            for name in stages:
                refs[name] = run_stage(STAGES[name], experiment, place, refs)
                # At once, so that what a run reads is known while it goes on.
                run.tags(models.stage_tags({name: refs[name]}))
        records = read_json(store.fetch(refs[stages[-1]]) / "training.json")["epochs"]
        measured = {int(record["epoch"]): float(record[OBJECTIVE]) for record in records}
        best = max(measured.values())
        run.metrics({f"best_{OBJECTIVE}": best})
    except StageStoppedError as stopped:
        end("KILLED", str(stopped))
        attempt.prune()
        return str(stopped)
    except MachineError as error:
        run.finish(*mlflow_runs.how_it_ended(error))
        raise
    except UserError as error:
        # Its values are to blame. All else is the machine's, and they are tried again where it is mended.
        reason = one_line(error)
        get_run_logger().warning("Failed", exc_info=error)
        end("FAILED", reason)
        attempt.fail(reason)
        return f"failed: {reason}"
    except BaseException as error:
        run.finish(*mlflow_runs.how_it_ended(error))
        raise
    end()
    attempt.complete(measured)
    return f"NDCG@10 {best:.4f} after {len(measured)} epochs, {duration(time.monotonic() - began)}"


def side_by_side(
    members: Members,
    planned: Plan,
    shared: dict[str, ArtifactRef],
    place: FlowTracking,
    begin: Callable[[int], tuple[Attempt, Experiment] | None],
    ended: Callable[[Attempt, str], None],
    left: Callable[[Attempt, str], None],
) -> None:
    """Run trials in other processes, which tell the study how they go by way of this one.

    Args:
        members: those processes.
        planned: what is tuned.
        shared: the artifacts that all trials have in common.
        place: the tuning's run.
        begin: the next trial, given how many are at work; None where there is none.
        ended: is told what came of one.
        left: is told of one whose process died, and why; it is to be begun again.

    Raises:
        MachineError: the processes of one trial died again and again.
    """
    at_work: dict[str, Attempt] = {}
    deaths: Counter[str] = Counter()

    def following() -> Job | None:
        if (begun := begin(len(at_work))) is None:
            return None
        attempt, mine = begun
        order = TrialOrder(
            number=attempt.place,
            values=attempt.values,
            experiment=members.mine(mine),
            stages=planned.varied,
            shared=shared,
            parent=place,
            flow_run=announce(run_trial),
        )
        name = name_of(attempt)
        at_work[name] = attempt
        return Job(
            name, {"do": "trial", "order": order.model_dump(mode="json")}, lambda question: _answer(attempt, question)
        )

    def over(job: Job, outcome: Outcome) -> None:
        attempt = at_work.pop(job.name)
        if outcome.died:
            get_run_logger().info("Left by processes that died: %s", tidy_first([outcome.sign]))
            deaths[job.name] += 1
            if deaths[job.name] == _TRIES:
                raise MachineError(f"trial {attempt.place}, {_TRIES} times: {outcome.reason}", cure=f"Then {AGAIN}")
            left(attempt, outcome.reason)
            return
        if outcome.result is None:
            raise RuntimeError(f"trial {attempt.place}: {outcome.reason}")
        ended(attempt, outcome.result)

    with members.crew(members.count, environment()) as crew:
        crew.work(following, over)


class TrialOrder(BaseModel):
    """What another process needs to run a trial: the arguments of `run_trial`, and where Prefect shows it."""

    number: int
    values: dict[str, Value]
    experiment: Experiment
    stages: tuple[str, ...]
    shared: dict[str, ArtifactRef]
    parent: FlowTracking
    flow_run: str


def trial_job(order: Mapping[str, Any], ask: Callable[[Any], Any]) -> str:
    """Run a trial for another process, which has the study; returns what came of it, in words."""
    wanted = TrialOrder.model_validate(order["order"])
    arguments = {name: getattr(wanted, name) for name in TrialOrder.model_fields if name != "flow_run"}
    with trying(_Elsewhere(ask)):
        return run_below(run_trial, arguments, wanted.flow_run)


class _Elsewhere:
    """Tells the study by way of the process that has it."""

    def __init__(self, ask: Callable[[Any], Any]) -> None:
        self._ask = ask

    def report(self, value: float, epoch: int) -> bool:
        return bool(self._ask(["report", value, epoch]))

    def note(self, run_id: str, seconds: float) -> None:
        self._ask(["note", run_id, seconds])

    def complete(self, values: Mapping[int, float]) -> float:
        return float(self._ask(["complete", list(values.items())]))

    def prune(self) -> None:
        self._ask(["prune"])

    def fail(self, reason: str) -> None:
        self._ask(["fail", reason])


def _answer(attempt: Attempt, question: Sequence[Any]) -> Any:
    match question:
        case ["report", value, epoch]:
            return attempt.report(value, epoch)
        case ["note", run_id, seconds]:
            return attempt.note(run_id, seconds)
        case ["complete", values]:
            return attempt.complete(dict(values))
        case ["prune"]:
            return attempt.prune()
        case ["fail", reason]:
            return attempt.fail(reason)
    raise ValueError(f"a trial says what is not understood: {question}")
