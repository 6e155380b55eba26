"""A stage that trains, in this process or by the workers of a cluster: the experiment says which.

Knows Ray Train: workers that start together and are replaced when one dies; knows nothing of what is trained. All that
is kept is in the stage's folders, which every machine sees: after each epoch a checkpoint, at the end the artifact.
Imports torch when first used: whoever asks which stages there are need not wait for it.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from prorec.tasks.execution.cluster import cluster, expect_room
from prorec.tasks.execution.reads import whole
from prorec.tasks.execution.stage import Work
from prorec.tasks.execution.worker import Begun, Done, Failed, Lost, Message, Task, Told, work
from prorec.tasks.local.paths import ARTIFACTS_VARIABLE
from prorec_core.config_compute import ComputeConfig
from prorec_core.errors import UserError, one_line
from prorec_core.progress import Progress
from prorec_core.stages.before import Before
from prorec_core.stages.work import StageWork

if TYPE_CHECKING:
    from prorec_core.training.workers import Workers

T = TypeVar("T")
_SECONDS = 0.3
"""How often it is looked whether the workers are still at it."""
_TRIES = 3
"""Times that workers begin again without an epoch in between."""
_DEATHS = 30
"""Deaths in a training, and starts that came to nothing, after which it is given up."""
_SECONDS_TO_BEGIN = 120.0
"""After so long without a worker that has begun the user is told."""
_SECONDS_FOR_MACHINES = 900.0
"""So long machines that were lost are waited for where the others have no room for all workers."""
_SECONDS_TO_ANSWER = 600
"""How long a worker waits for the others in one step."""
_ENVIRONMENT = (ARTIFACTS_VARIABLE, "MLFLOW_TRACKING_URI")
_log = logging.getLogger(__name__)


def trained(work: Work, training: Callable[[StageWork, Any], T], load: Callable[[Path], T], before: Before | None) -> T:
    """What a training leaves, which is in the stage's folder then too.

    Args:
        work: of the stage.
        training: the stage of `prorec_core`.
        load: reads what it left.
        before: an earlier training, from which this one goes on.

    Raises:
        UserError: a mistake that the user can put right; or the workers die again and again.
    """
    if work.experiment.compute.engine == "local":
        return training(work, before)
    _train(work, training, before)
    return load(work.folder)


def _train(work: Work, training: Callable[[StageWork, Any], object], before: Before | None) -> None:
    compute = work.experiment.compute
    with cluster(compute), _meeting_place(work.checkpoints) as place:
        sign = place / "sign", secrets.token_hex(16)
        sign[0].write_text(sign[1])
        experiment, declared, stage = whole(work.experiment)
        task = Task(
            training,
            stage,
            experiment.model_dump_json(),
            declared,
            dict(work.config),
            {name: str(path.absolute()) for name, path in work.inputs.items()},
            str(work.folder.absolute()),
            str(work.checkpoints.absolute()),
            (str(sign[0]), sign[1]),
            compute.cpus_per_worker,
            compute.gpus_per_worker > 0 and experiment.device != "cpu",
            {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            before,
        )
        with closing(_messages(task, place, compute)) as messages:
            _listen(work, stage, messages)


def _listen(work: Work, stage: str, messages: Iterator[Message]) -> None:
    """Pass on what the workers tell.

    Raises:
        UserError: one of them met a mistake of the user's; or they are gone, and have left nothing.
    """
    done = False
    for message in messages:
        match message:
            case Progress():
                work.report(message)
            case Lost():
                _log.warning("%s: a worker is lost (%s); all begin again, from the last epoch", stage, message.why)
            case Told():
                _log.warning("%s: %s", stage, message.text)
            case Done():
                done = True
                work.made_with.update(message.made_with)
                work.run.metrics({"peak_worker_memory_mib": message.peak / 2**20})
            case Failed(error=None):
                raise RuntimeError(f"a worker failed:\n{message.traceback}")
            case Failed():
                raise cast("UserError", message.error)
            case Begun(goes_on=True):
                _log.warning("%s: the training goes on from its last epoch", stage)
            case Begun():
                pass
    if not done:
        raise RuntimeError("the workers ended without a result")


@contextmanager
def _meeting_place(checkpoints: Path) -> Iterator[Path]:
    """A folder that all machines see, beside the checkpoints."""
    place = checkpoints.absolute() / "workers"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _messages(task: Task, place: Path, compute: ComputeConfig) -> Generator[Message]:
    """What the workers tell, until all is done; when this is closed they are ended.

    Raises:
        UserError: they die again and again, or there is no room for them any more.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Whoever watches the workers is not to be lost with one of their machines.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    beside: Any = {"num_cpus": 0, "scheduling_strategy": here}
    letters: Any = ray.remote(_Letters).options(**beside).remote()
    # A process of its own, so that all that it started goes with it.
    leader = ray.remote(_lead).options(**beside, max_retries=0)
    led = leader.remote(task, str(place), compute.workers, compute.gpus_per_worker, letters)
    starts = _Starts(task.stage, compute, time.monotonic())
    try:
        while True:
            # In this order: all that is told before the end is taken after it.
            ended = bool(ray.wait([led], timeout=_SECONDS)[0])
            for message in ray.get(letters.take.remote()):
                starts.heard(message, time.monotonic())
                yield message
            if ended:
                ray.get(led)
                return
            if told := starts.waited(time.monotonic()):
                yield told
    except ray.exceptions.RayError as error:
        raise UserError(
            f"the workers are gone ({one_line(error)})",
            place=f"stage {task.stage}",
            cure="Look at the cluster (ray status); the same command goes on from the last epoch",
        ) from error
    finally:
        with suppress(Exception):
            ray.cancel(led, force=True)
            ray.kill(letters)


class _Starts:
    """How often workers began, and how long it is waited for them; seconds are those of one clock."""

    def __init__(self, stage: str, compute: ComputeConfig, now: float) -> None:
        self._stage, self._compute = stage, compute
        self._begun = 0
        self._since: float | None = now
        self._told = False

    def heard(self, message: Message, now: float) -> None:
        """Take note of what workers tell.

        Raises:
            UserError: they began again and again, and no epoch was over.
        """
        match message:
            case Progress():
                self._begun = 0
            case Lost():
                self._since, self._told = now, False
            case Begun():
                self._begun, self._since = self._begun + 1, None
                if self._begun > _TRIES:
                    raise UserError(
                        f"workers died {_TRIES} times before an epoch was over",
                        place=f"stage {self._stage}",
                        cure="Look at their memory (dmesg tells what the kernel ended), or ask for fewer workers",
                    )

    def waited(self, now: float) -> Told | None:
        """What is to be told while none has begun; once.

        Raises:
            UserError: for long there has not been room for all, whoever has it.
        """
        if self._since is None or now - self._since < _SECONDS_TO_BEGIN:
            return None
        if now - self._since > _SECONDS_FOR_MACHINES:
            # What others have is waited for as long as it takes.
            self._expect_machines()
        if self._told:
            return None
        self._told = True
        return Told(
            f"no workers have begun yet: is there room for {self._compute.workers} of them now? `ray status` tells"
        )

    def _expect_machines(self) -> None:
        try:
            expect_room(self._compute)
        except UserError as error:
            raise UserError(
                f"workers were waited for, for {_SECONDS_FOR_MACHINES / 60:.0f} minutes: {error.problem}",
                place=f"stage {self._stage}",
                cure="Bring machines back, or set compute.workers to fewer; both go on from the last epoch",
            ) from error


class _Letters:
    """What workers told, until it is taken; an actor."""

    def __init__(self) -> None:
        self._all: list[Message] = []

    def put(self, message: Message) -> None:
        """Add what a worker tells."""
        self._all.append(message)

    def take(self) -> list[Message]:
        """All that was told since this was last asked."""
        found, self._all = self._all, []
        return found


def _lead(task: Task, place: str, workers: int, gpus: int, letters: Any) -> None:
    """Have the workers of a group do the task, and replace it when one dies."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    def lost(_self: object, run_context: object, worker_exceptions: Mapping[int, Exception]) -> None:
        letters.put.remote(Lost(_why(worker_exceptions)))

    losses = type("Losses", (UserCallback,), {"after_exception": lost})
    resources = {"CPU": float(task.threads), **({"GPU": float(gpus)} if gpus else {})}
    # Not Ray's own for torch: what goes wrong while its workers meet is no death to it, and ends all.
    DataParallelTrainer(
        _one,
        train_loop_config={"task": task, "letters": letters},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources),
        # A program's own error is told, and ends a worker well: what is left are deaths.
        run_config=RunConfig(
            name="train",
            storage_path=place,
            failure_config=FailureConfig(max_failures=_DEATHS),
            callbacks=[losses()],
        ),
    ).fit()


def _why(errors: Mapping[int, Exception]) -> str:
    """Of the workers that ended, why, and where: those that are dead first, for the others only miss them."""
    dead = [failure for error in errors.values() if (failure := getattr(error, "health_check_failure", None))]
    if not dead:
        return one_line(next(iter(errors.values())))
    lines = [line for line in str(dead[0]).splitlines() if line.strip()]
    # Ray's message: fields behind tabs, then the reason in words, which may have details behind tabs, too.
    place = next((line.partition("ip:")[2].strip() for line in lines if line.startswith("\tip:")), "")
    reason = next((line for line in reversed(lines) if not line.startswith("\t")), type(dead[0]).__name__)
    return f"{place}: {reason.partition('. ')[0]}" if place else reason.partition(". ")[0]


def _one(config: dict[str, Any]) -> None:
    """One worker."""
    task: Task = config["task"]

    def send(message: Message) -> None:
        import ray

        ray.get(config["letters"].put.remote(message))

    work(task, lambda: _joined(task.gpus), send)


def _joined(gpus: bool) -> AbstractContextManager[Workers]:
    """Of the workers that Ray has started at once this one, and the others."""
    import ray
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero
    from ray.train.torch import get_device

    from prorec_core.training.meeting import meet

    context: Any = get_context()
    return meet(
        context.get_world_rank(),
        context.get_world_size(),
        ray.util.get_node_ip_address(),
        broadcast_from_rank_zero,
        device=str(get_device()) if gpus else "cpu",
        seconds=_SECONDS_TO_ANSWER,
    )
