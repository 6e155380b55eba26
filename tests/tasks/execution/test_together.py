"""A stage's training by several workers: what each does of it, what they tell, and that a dead one is replaced."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from prorec.tasks.execution import together
from prorec.tasks.execution.cluster import cluster
from prorec.tasks.execution.reads import UndeclaredReadError, view, whole
from prorec.tasks.execution.stage import Work
from prorec.tasks.execution.worker import Begun, Done, Failed, Lost, Message, Task, Told, work
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec_core.config import Experiment
from prorec_core.config_compute import ComputeConfig
from prorec_core.errors import UserError
from prorec_core.progress import Progress
from prorec_core.stages.work import StageWork
from prorec_core.training.workers import WorkerLostError, Workers

DECLARED = ("collaborative", "seed")


class _Second(Workers):
    rank, count = 1, 2


def _trained(part: StageWork, before: object) -> None:
    """Leaves what it was told, and reads what it may."""
    part.report(Progress(1, 1, "epoch", {"seed": part.experiment.seed}))
    if part.keeps:
        (part.folder / "result").write_text(str(before))
    part.made_with["device"] = "cpu"


@pytest.fixture
def task(tmp_path: Path) -> Task:
    folders = {name: tmp_path / name for name in ("folder", "checkpoints", "inputs")}
    for folder in folders.values():
        folder.mkdir()
    sign = tmp_path / "checkpoints" / "sign"
    sign.write_text("here")
    return Task(
        _trained,
        "a stage",
        Experiment(seed=7).model_dump_json(),
        DECLARED,
        {},
        {"preprocess": str(folders["inputs"])},
        str(folders["folder"]),
        str(folders["checkpoints"]),
        (str(sign), "here"),
        1,
        False,
        {},
        None,
    )


def _told(task: Task, workers: Workers) -> list[Message]:
    said: list[Message] = []
    work(task, lambda: nullcontext(workers), said.append)
    return said


def test_the_first_worker_tells_and_keeps(task: Task) -> None:
    (Path(task.folder) / "half").write_text("of one that died")
    begun, progress, done = _told(task, Workers())
    assert begun == Begun(goes_on=False) and progress == Progress(1, 1, "epoch", {"seed": 7})
    assert isinstance(done, Done) and done.peak > 2**20
    assert done.made_with == {"device": "cpu", "engine": "ray", "workers": "1"}
    assert [path.name for path in Path(task.folder).iterdir()] == ["result"]


def test_another_worker_keeps_nothing_and_is_silent(task: Task) -> None:
    assert _told(task, _Second()) == []
    assert list(Path(task.folder).iterdir()) == []


def test_a_worker_that_cannot_reach_the_store_says_so_before_it_begins(task: Task) -> None:
    for wrong in (
        replace(task, sign=(task.sign[0], "another")),
        replace(task, sign=(f"{task.sign[0]}s", "here")),
        replace(task, inputs={"preprocess": f"{task.folder}/none"}),
    ):
        (found,) = _told(wrong, _Second())
        assert isinstance(found, Failed)
        assert f"a worker on {os.uname().nodename} cannot reach the folder of artifacts" in str(found.error)


def test_mistakes_are_told_and_the_loss_of_a_worker_is_not(task: Task) -> None:
    def wrong(error: Exception) -> Task:
        def training(*_: object) -> None:
            raise error

        return replace(task, training=training)

    *_, found = _told(wrong(UserError("too many")), Workers())
    assert isinstance(found, Failed) and str(found.error) == "too many."
    *_, found = _told(wrong(ZeroDivisionError("by none")), Workers())
    assert isinstance(found, Failed) and found.error is None and "ZeroDivisionError: by none" in found.traceback
    with pytest.raises(WorkerLostError):
        _told(wrong(WorkerLostError("gone")), Workers())


def test_a_part_of_an_experiment_is_the_same_in_another_process() -> None:
    experiment = Experiment(seed=3)
    again = view(*whole(view(experiment, DECLARED, "a stage")))
    assert again.seed == 3 and again.device == "auto" and again.compute.engine == "local"
    with pytest.raises(UndeclaredReadError, match="a stage"):
        _ = again.generator


@dataclass
class _Run:
    """Stands for a stage's MLflow run."""

    found: dict[str, float] = field(default_factory=dict)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.found |= values


def _work(tmp_path: Path, **compute: Any) -> tuple[Work, list[Progress], _Run]:
    folders = [tmp_path / name for name in ("folder", "checkpoints")]
    for folder in folders:
        folder.mkdir()
    experiment = Experiment.model_validate({"seed": 7, "compute": compute})
    told: list[Progress] = []
    run = _Run()
    part = view(experiment, DECLARED, "a stage")
    return Work(part, {}, {}, *folders, told.append, cast("TrackedRun", run)), told, run


def test_one_process_trains_as_ever(tmp_path: Path) -> None:
    found, told, _ = _work(tmp_path)
    together.trained(found, _trained, lambda folder: None, None)
    assert told == [Progress(1, 1, "epoch", {"seed": 7})] and found.made_with == {"device": "cpu"}


def test_what_workers_tell_reaches_those_who_listen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found, told, run = _work(tmp_path)
    said = [Begun(goes_on=True), Lost("gone"), Told("a word"), Progress(1, 2, "epoch"), Done({"workers": "2"}, 2**21)]
    together._listen(found, "align", iter(said))
    assert caplog.messages == [
        "align: the training goes on from its last epoch",
        "align: a worker is lost (gone); all begin again, from the last epoch",
        "align: a word",
    ]
    assert told == [Progress(1, 2, "epoch")]
    assert found.made_with == {"workers": "2"} and run.found == {"peak_worker_memory_mib": 2.0}
    with pytest.raises(RuntimeError, match="without a result"):
        together._listen(found, "align", iter([Begun(goes_on=False)]))
    with pytest.raises(UserError, match="wrong"):
        together._listen(found, "align", iter([Failed(UserError("wrong"), "")]))
    with pytest.raises(RuntimeError, match="line 1"):
        together._listen(found, "align", iter([Failed(None, "line 1")]))


def test_it_is_told_where_a_worker_was_and_why_it_is_gone() -> None:
    class EndedError(Exception):
        health_check_failure = RuntimeError(
            "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n\tip: 10.0.0.3\n"
            "The actor died because its node has died. Node Id: f00\n\tmissed too many heartbeats"
        )

    others = WorkerLostError("a worker is gone (closed)")
    assert together._why({0: others, 1: EndedError()}) == "10.0.0.3: The actor died because its node has died"
    assert together._why({0: others}) == "WorkerLostError: a worker is gone (closed)"


COMPUTE = ComputeConfig.model_validate({"engine": "ray", "workers": 2})


def test_workers_that_have_not_begun_are_told_of_once_and_waited_for_where_others_have_the_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[ComputeConfig]()
    monkeypatch.setattr(together, "expect_room", asked.append)
    starts = together._Starts("align", COMPUTE, 0.0)
    assert starts.waited(100) is None and starts.waited(121) is not None and starts.waited(122) is None
    assert not asked and starts.waited(901) is None and asked == [COMPUTE]
    starts.heard(Begun(goes_on=False), 910)
    assert starts.waited(10_000) is None, "they are at work"
    starts.heard(Progress(1, 9, "epoch"), 10_000)
    starts.heard(Lost("gone"), 10_001)
    assert starts.waited(10_100) is None and starts.waited(10_130) is not None


def test_machines_that_do_not_come_back_end_the_training_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: ComputeConfig) -> None:
        raise UserError("there is room for 1 of 2 workers")

    monkeypatch.setattr(together, "expect_room", none)
    starts = together._Starts("align", COMPUTE, 0.0)
    starts.heard(Begun(goes_on=False), 1)
    starts.heard(Lost("gone"), 2)
    assert starts.waited(890) is not None
    with pytest.raises(UserError, match=r"stage align: .* 15 minutes: there is room for 1 of 2 .* compute.workers"):
        starts.waited(910)


def test_workers_that_die_again_and_again_end_the_training() -> None:
    starts = together._Starts("align", COMPUTE, 0.0)
    for number in range(6):
        starts.heard(Begun(goes_on=True), number)
        if number == 2:
            starts.heard(Progress(1, 9, "epoch"), number)
    with pytest.raises(UserError, match="died 3 times before an epoch was over"):
        starts.heard(Begun(goes_on=True), 7)


def _dies_once(part: StageWork, before: object) -> None:
    """The second worker is killed in the second epoch, the first time; all meet in every epoch."""
    workers = part.workers
    assert workers is not None
    for epoch in (1, 2):
        mark = part.checkpoints / f"epoch-{epoch}"
        if epoch == 2 and workers.rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (ranks,) = workers.total([float(workers.rank)], torch.device("cpu"))
        assert ranks == 1
        part.report(Progress(epoch, 2, "epoch"))
    if part.keeps:
        (part.folder / "result").write_text("whole")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers want two cores")
def test_a_worker_that_dies_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found, told, _ = _work(tmp_path, engine="ray", workers=2)
    with cluster(found.experiment.compute):
        from ray import cloudpickle

        # The workers cannot import what stands in a test.
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        together.trained(found, _dies_once, lambda folder: None, None)
    assert [progress.step for progress in told] == [1, 1, 2]
    assert "a stage: the training goes on from its last epoch" in caplog.messages
    assert (found.folder / "result").read_text() == "whole"
    assert found.made_with == {"engine": "ray", "workers": "2"}
    assert [path.name for path in found.checkpoints.iterdir()] == ["epoch-2"]
