"""A stage that trains, in this process or by the workers of a cluster: the experiment says which.

Knows Ray Train: workers that start together and are replaced when one dies; knows nothing of what is trained. All that
is kept is in the stage's folders, which every machine sees: after each epoch a checkpoint, at the end the artifact.
Imports torch when first used: whoever asks which stages there are need not wait for it.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from prorec.tasks.execution.cluster import cluster
from prorec.tasks.execution.reads import whole
from prorec.tasks.execution.stage import Work
from prorec.tasks.execution.worker import Begun, Done, Failed, Message, Task, Told, work
from prorec.tasks.local.paths import ARTIFACTS_VARIABLE
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
        with closing(_messages(task, place, compute.workers, compute.gpus_per_worker)) as messages:
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


def _messages(task: Task, place: Path, workers: int, gpus: int) -> Generator[Message]:
    """What the workers tell, until all is done; when this is closed they are ended.

    Raises:
        UserError: they die again and again.
    """
    import ray

    letters: Any = ray.remote(_Letters).options(num_cpus=0).remote()
    # A process of its own, so that all that it started goes with it.
    leader = ray.remote(_lead).options(num_cpus=0, max_retries=0).remote(task, str(place), workers, gpus, letters)
    begun, last = 0, time.monotonic()
    try:
        while True:
            # In this order: all that is told before the end is taken after it.
            ended = bool(ray.wait([leader], timeout=_SECONDS)[0])
            if time.monotonic() - last > _SECONDS_TO_BEGIN:
                yield Told(f"no workers have begun yet: is there room for {workers} of them now? `ray status` tells")
                last = math.inf
            for message in ray.get(letters.take.remote()):
                if isinstance(message, Progress):
                    begun = 0
                elif isinstance(message, Begun):
                    begun, last = begun + 1, math.inf
                    if begun > _TRIES:
                        raise UserError(
                            f"workers died {_TRIES} times before an epoch was over",
                            place=f"stage {task.stage}",
                            cure="Look at their memory (dmesg tells what the kernel ended), or ask for fewer workers",
                        )
                yield message
            if ended:
                ray.get(leader)
                return
    except ray.exceptions.RayError as error:
        raise UserError(
            f"the workers are gone ({one_line(error)})",
            place=f"stage {task.stage}",
            cure="Look at the cluster (ray status); the same command goes on from the last epoch",
        ) from error
    finally:
        with suppress(Exception):
            ray.cancel(leader, force=True)
            ray.kill(letters)


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
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = {"CPU": float(task.threads), **({"GPU": float(gpus)} if gpus else {})}
    TorchTrainer(
        _one,
        train_loop_config={"task": task, "letters": letters},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources),
        torch_config=TorchConfig(backend="nccl" if task.gpus else "gloo", timeout_s=_SECONDS_TO_ANSWER),
        # A program's own error is told, and ends a worker well: what is left are deaths.
        run_config=RunConfig(name="train", storage_path=place, failure_config=FailureConfig(max_failures=_DEATHS)),
    ).fit()


def _one(config: dict[str, Any]) -> None:
    """One worker."""
    task: Task = config["task"]

    def joined() -> Workers:
        from ray.train.torch import get_device

        return _joined(str(get_device()) if task.gpus else "cpu")

    def send(message: Message) -> None:
        import ray

        ray.get(config["letters"].put.remote(message))

    work(task, joined, send)


def _joined(device: str) -> Workers:
    """The workers of torch's process group; a single one draws what one process does, and so makes the same."""
    from prorec_core.training.workers import Group, Workers

    found: Workers = Group(device=device)
    if found.count == 1:
        found = Workers()
        found.device = device
    return found
