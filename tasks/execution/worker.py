"""What one of several workers does of a stage: it trains with the others, and the first one tells how far they are.

Runs in a process that Ray started, on whatever machine. Knows the folders of a stage's work and torch's process group;
knows nothing of who waits for the result. What it is given, and what it tells, Ray sends between its own processes,
behind the cluster's token; none of that is kept.
"""

from __future__ import annotations

import logging
import os
import shutil
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prorec.tasks.execution.reads import view
from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.progress import Progress, silent
from prorec_core.stages.before import Before
from prorec_core.stages.work import StageWork

if TYPE_CHECKING:
    from prorec_core.training.workers import Workers

Given = TypeVar("Given")
Made = TypeVar("Made")
Training = Callable[[StageWork, Any], object]
"""A stage of `prorec_core` that trains, from files to files, anew or from an earlier one."""


@dataclass(frozen=True)
class Begun:
    """The first worker is about to train, from the last epoch where there is one."""

    goes_on: bool


@dataclass(frozen=True)
class Lost:
    """Workers are gone; all are to begin again, from the last epoch, where there is room for all."""

    why: str


@dataclass(frozen=True)
class Told:
    """Something that the user should read."""

    text: str


@dataclass(frozen=True)
class Failed:
    """A worker cannot go on, and no other could: a user's mistake, or the traceback of one of the program's own."""

    error: UserError | None
    traceback: str

    @property
    def raised(self) -> Exception:
        """What whoever asked is to raise."""
        return self.error or RuntimeError(f"a worker failed:\n{self.traceback}")


def attempted(do: Callable[[Given], Made], given: Given) -> Made | Failed:
    """What is made, or what that failed of as a value, so that every error that Ray raises is a loss."""
    try:
        return do(given)
    except UserError as error:
        return Failed(error, "")
    except Exception:
        return Failed(None, traceback.format_exc())


@dataclass(frozen=True)
class Done:
    """All is written; how it was made, and the most memory that the first worker took, in bytes."""

    made_with: Mapping[str, str]
    peak: int


Message = Begun | Lost | Told | Progress | Failed | Done
Send = Callable[[Message], None]


@dataclass(frozen=True)
class Task:
    """All that a worker is told of its work.

    Attributes:
        training: what is done.
        stage: its name.
        experiment: whole, as JSON.
        declared: the dotted names of what the stage may read of it.
        config, inputs, folder, checkpoints: as in `StageWork`, the paths as text.
        sign: a file in the checkpoints' folder, and the text in it.
        threads: for each worker.
        gpus: whether each has one.
        environment: variables by which stores are found.
        before: an earlier training, from which this one goes on.
    """

    training: Training
    stage: str
    experiment: str
    declared: tuple[str, ...]
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    folder: str
    checkpoints: str
    sign: tuple[str, str]
    threads: int
    gpus: bool
    environment: Mapping[str, str]
    before: Before | None


def work(task: Task, joined: Callable[[], AbstractContextManager[Workers]], send: Send) -> None:
    """Do one worker's part; returns when all is done, or when it was told why it cannot be.

    Args:
        task: the work.
        joined: joins the others, as long as the context lasts.
        send: takes what is to be told.

    Raises:
        WorkerLostError: another worker is gone; all are to begin again, from the last epoch.
    """
    from prorec_core.training.workers import WorkerLostError

    try:
        _expect_store(task)
        with joined() as workers:
            _do(task, workers, send)
    except WorkerLostError:
        raise
    except UserError as error:
        send(Failed(error, ""))
    except Exception:
        send(Failed(None, traceback.format_exc()))


def _do(task: Task, workers: Workers, send: Send) -> None:
    import torch

    torch.set_num_threads(task.threads)
    os.environ.update(task.environment)
    part = StageWork(
        view(Experiment.model_validate_json(task.experiment), task.declared, task.stage),
        task.config,
        {name: Path(place) for name, place in task.inputs.items()},
        Path(task.folder),
        Path(task.checkpoints),
        send if workers.first else silent,
        workers=workers,
    )
    if workers.first:
        _pass_warnings(send)
        _empty(part.folder)
        send(Begun(any(part.checkpoints.glob("epoch-*"))))
    task.training(part, task.before)
    if workers.first:
        made = {**part.made_with, "engine": "ray", "workers": str(workers.count)}
        send(Done(made, _peak()))


def _expect_store(task: Task) -> None:
    """Refuse a machine that does not see the stage's folders, before anything is trained.

    Raises:
        UserError: names the machine and the folder.
    """
    file, text = task.sign
    try:
        seen = Path(file).read_text() == text and all(Path(place).is_dir() for place in task.inputs.values())
    except OSError:
        seen = False
    if not seen or not os.access(task.folder, os.W_OK):
        raise not_reached(Path(task.folder).parent)


def not_reached(place: Path) -> UserError:
    """What a worker says that does not see a folder of artifacts."""
    return UserError(
        f"a worker on {os.uname().nodename} cannot reach the folder of artifacts",
        place=str(place),
        cure="Mount one shared folder at the same path on all machines, and name it in PROREC_ARTIFACTS",
    )


def _empty(folder: Path) -> None:
    """Remove what a worker that died had begun to write."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _pass_warnings(send: Send) -> None:
    class Passing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            send(Told(record.getMessage()))

    logger = logging.getLogger("prorec_core")
    logger.handlers = [Passing(logging.WARNING)]
    logger.propagate = False


def _peak() -> int:
    """The most resident memory that this process had, bytes; Linux counts in KiB, macOS in bytes."""
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
