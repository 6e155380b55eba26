"""One stage's life: Prefect's cache, MLflow run, manifest, upload, reference.

Knows Prefect, MLflow and manifests; knows nothing of the method: each stage's body does.
"""

from __future__ import annotations

import inspect
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect import Task, get_run_logger
from prefect.states import Completed

from prorec.tasks.execution.events import Notice, StageEnded, StageProgress, StageStarted, StageStoppedError, emit
from prorec.tasks.execution.needs import expect_room
from prorec.tasks.execution.pages import stage_page
from prorec.tasks.execution.prefect_run import PrefectRun, failed
from prorec.tasks.execution.remarks import remarks_of
from prorec.tasks.execution.stage import FlowTracking, Stage, Work
from prorec.tasks.local import paths
from prorec.tasks.local.folders import written
from prorec.tasks.local.machine_errors import explained
from prorec.tasks.local.memory import OF_PROCESS, Peak, give_back, peak_memory
from prorec.tasks.local.stopping import stops_kept
from prorec.tasks.local.waiting import so_far
from prorec.tasks.tracking import leases, store
from prorec.tasks.tracking import mlflow_runs as tracked
from prorec.tasks.tracking.datasets import DataSet, data_sets
from prorec.tasks.tracking.leases import Lease, LeaseLostError, lease
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec.tasks.tracking.retries import is_passing, retrying
from prorec_core.artifacts import (
    MANIFEST,
    ArtifactRef,
    Manifest,
    read_json,
    write_manifest,
)
from prorec_core.config import Experiment
from prorec_core.errors import UserError, one_line
from prorec_core.progress import Progress, duration
from prorec_core.training.trouble import told_of_device
from prorec_core.visible import in_markdown

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun


_CACHED = "Cached"


def run_stage(
    of: Stage,
    experiment: Experiment,
    tracking: FlowTracking,
    upstream: Mapping[str, ArtifactRef],
    *,
    force: bool = False,
) -> ArtifactRef:
    """The stage's artifact: from the cache if it is there and whole, made anew otherwise.

    Raises:
        UserError: a mistake that the user can put right.
    """
    begun = time.monotonic()
    emit(StageStarted(of.name))
    used = {name: upstream[name] for name in of.reads}
    outside = of.found_outside(experiment)
    key = of.key(experiment, used, outside)

    def call(refresh: bool) -> State[Any]:
        task = _task(of).with_options(refresh_cache=refresh, result_storage=paths.references())
        with stops_kept():
            return cast("State[Any]", task(experiment, used, tracking, key, outside, refresh, return_state=True))

    def waiting(seconds: float) -> None:
        _waits(of, leases.holder(key), seconds)

    # Of those that share this folder only one asks the others. The kernel tells at once when it dies.
    with paths.lock(key, waiting):
        state = call(force)
        ref, problems = _taken(of, state, key)
        cached = state.name == _CACHED and not problems
        if problems:
            _notice(of, f"made again, since the stored artifact is not whole: {problems[0]}")
            damaged, ref = ref, store.as_ref(call(True).result(), of.name)
            if damaged:
                store.mark_replaced(damaged, ref)
        if cached and ref is not None:
            _clear(of, key, ref)
    assert ref is not None
    emit(StageEnded(ref, cached, time.monotonic() - begun))
    for text in remarks_of(ref, experiment):
        _notice(of, text)
    return ref


def _taken(of: Stage, state: State[Any], key: str) -> tuple[ArtifactRef | None, list[str]]:
    """What a task run came to, and what is wrong with it if it is from the cache."""
    value = state.result()
    if state.name != _CACHED:
        return store.as_ref(value, of.name), []
    try:
        ref = store.as_ref(value, of.name)
    except ValueError as error:
        return None, [f"the cached reference cannot be read ({str(error).splitlines()[0]})"]
    if not store.is_of(ref, key):
        return None, ["the cached reference is another artifact's"]
    return ref, store.check(ref)


def _clear(of: Stage, key: str, ref: ArtifactRef) -> None:
    """Remove what one left who died between storing this artifact and clearing up; never what one at work needs, nor
    checkpoints that are younger: they are those of a training that was begun anew, and is to go on."""
    left = [folder for folder in (paths.work(key), paths.checkpoints(key)) if folder.exists()]
    if left and not leases.holder(key):
        # Another machine may begin to make it anew just now.
        with lease(key, partial(_waits, of)):
            ended = retrying(tracked.client().get_run, ref.run_id).info.end_time
            for folder in left:
                if folder == paths.work(key) or (ended is not None and written(folder) <= ended / 1000):
                    shutil.rmtree(folder, ignore_errors=True)


def _notice(of: Stage, text: str) -> None:
    get_run_logger().warning("%s: %s", of.name, text)
    emit(Notice(f"{of.name}: {text}"))


def _waits(of: Stage, who: str, seconds: float) -> None:
    _notice(of, f"another run is making this artifact; waiting for it{so_far(seconds)}{f' ({who})' if who else ''}")


def _data_sets(
    experiment: Experiment, inputs: Mapping[str, Path], refs: Mapping[str, ArtifactRef], outside: str
) -> Iterator[DataSet]:
    if not refs:
        source = experiment.data.path or experiment.data.source
        # Behind its digest may stand that of the version that is gone on from.
        yield DataSet(f"{experiment.name}/source", outside.partition(" ")[0], source, {}, None)
    if "preprocess" in refs:
        yield from data_sets(experiment.name, inputs["preprocess"], refs["preprocess"].uri)


def _execute(
    of: Stage,
    experiment: Experiment,
    upstream: dict[str, ArtifactRef],
    tracking: FlowTracking,
    key: str,
    outside: str,
    anew: bool,
) -> ArtifactRef | State[Any]:
    """Find the artifact where Prefect's cache does not know it, or make it and store it, unless others just do."""
    known = store.find_all(key)
    if known and not anew:
        return _found(known[0], "no reference to it was cached here")
    before = {ref.run_id for ref in known}
    while True:
        with lease(key, partial(_waits, of)) as mine:
            made = next((ref for ref in store.find_all(key) if ref.run_id not in before), None)
            if made:
                return _found(made, "another run made it meanwhile")
            try:
                return _make(of, experiment, upstream, tracking, key, outside, mine)
            except LeaseLostError as lost:
                _notice(of, str(lost))


def _found(ref: ArtifactRef, why: str) -> State[Any]:
    message = f"Stored by MLflow run {ref.run_id}"
    get_run_logger().info("%s; %s", message, why)
    return Completed(name=_CACHED, message=message, data=ref)


def _make(
    of: Stage,
    experiment: Experiment,
    upstream: dict[str, ArtifactRef],
    tracking: FlowTracking,
    key: str,
    outside: str,
    mine: Lease,
) -> ArtifactRef:
    """Make the artifact and store it.

    Raises:
        LeaseLostError: others took this process for dead, and make it.
    """
    refs = {name: store.as_ref(upstream[name], name.partition("@")[0]) for name in of.reads}
    inputs = {name: store.fetch(ref) for name, ref in refs.items()}
    place = PrefectRun.here()
    again = f"To run it again: {tracking.again or place.again}"

    def page(head: str, manifest: Manifest | None = None) -> str:
        written = (run.id, manifest) if manifest else None
        return stage_page(f"**{of.name}** of {experiment.name}: {head}", refs, tracking.run_id, place, written)

    run = TrackedRun.start(
        tracking.experiment_id,
        f"{of.name} · {experiment.name}",
        parent=tracking.run_id,
        tags={
            **place.tags,
            store.STAGE_TAG: of.name,
            store.KEY_TAG: key,
            tracked.NOTE_TAG: page("not finished"),
        },
    )
    begun = time.monotonic()
    folder = paths.work(key)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seen: set[tuple[int, str]] = set()

    def report(progress: Progress) -> None:
        mine.expect()
        run.metrics(progress.metrics, progress.step)
        seen.update((progress.step, name) for name in progress.metrics)
        emit(StageProgress(of.name, progress))

    work = Work(of.part(experiment), of.values(experiment), inputs, folder, paths.checkpoints(key), report, run)
    try:
        place.show_mlflow(of.name, run.id, tracked.page(tracking.experiment_id, run.id))
        run.parameters(work.config)
        for data in _data_sets(experiment, inputs, refs, outside):
            run.data_set(data)
        give_back()
        for told in expect_room(of.name, of.memory(experiment, inputs), experiment.device) if of.memory else ():
            _notice(of, told)
        with peak_memory() as peak, told_of_device(of.name):
            measured = dict(of.body(work) or {})
        measured |= _of_memory(peak) | (_of_the_epoch_kept(folder) if of.validates else {})
        if of.found_outside(experiment) != outside:
            raise UserError("what the stage reads was changed while it read it", place=of.name, cure="Run it again")
        mine.expect()
        ref = _keep(of, work, refs, run, seen, measured, begun, page)
    except StageStoppedError as stopped:
        run.finish("KILLED", str(stopped), page(f"**stopped.** {stopped}"))
        shutil.rmtree(work.checkpoints, ignore_errors=True)
        raise
    except LeaseLostError as lost:
        run.finish("KILLED", str(lost), page(f"**stopped.** {lost}"))
        raise
    except Exception as error:
        reason = one_line(explained(error) or error)
        run.finish("FAILED", reason, page(f"**failed.** {in_markdown(reason)}\n\n{again}"))
        raise
    except BaseException:
        run.finish("KILLED", "stopped", page(f"**stopped.** {again}"))
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(work.checkpoints, ignore_errors=True)
    return ref


def _keep(
    of: Stage,
    work: Work,
    refs: Mapping[str, ArtifactRef],
    run: TrackedRun,
    seen: set[tuple[int, str]],
    measured: Mapping[str, float],
    begun: float,
    page: Callable[[str, Manifest], str],
) -> ArtifactRef:
    """Describe and store what the body left, and close the stage's run."""
    for epoch in _epochs(work.folder):
        # After a crash the epochs before it are known only from the artifact.
        step = int(epoch["epoch"])
        run.metrics({k: v for k, v in epoch.items() if k != "epoch" and (step, k) not in seen}, step)
    upstream = {name: ref.digest for name, ref in refs.items()}
    manifest = write_manifest(work.folder, of.name, work.config, upstream, work.made_with, of.version)
    run.upload(work.folder, last=MANIFEST)
    tags = dict(of.publish(work)) if of.publish else {}
    seconds = time.monotonic() - begun
    run.metrics({**measured, "seconds": seconds})
    run.tags(
        {
            **tags,
            **store.tags_of(run.artifact_uri, work.folder, manifest),
            tracked.NOTE_TAG: page(f"done in {duration(seconds)}.", manifest),
        }
    )
    run.finish()
    return ArtifactRef(stage=of.name, digest=manifest.digest, run_id=run.id, uri=run.artifact_uri)


@cache
def _task(of: Stage) -> Task[..., Any]:
    make = partial(_execute, of)

    # Prefect finds the names of the parameters by way of `wraps`, and calls with their values in order.
    @wraps(make)
    def execute(*values: Any) -> ArtifactRef | State[Any]:
        try:
            return make(*values)
        except StageStoppedError as stopped:
            return cast("State[Any]", failed(stopped, str(stopped)))
        except Exception as error:
            return cast("State[Any]", failed(error))

    return Task(
        fn=execute,
        name=of.name,
        description=inspect.getdoc(of.body),
        task_run_name=f"{of.name} · {{experiment.name}}",
        cache_key_fn=_key_of,
        persist_result=True,
        result_serializer="json",
        retries=2,
        retry_delay_seconds=[10, 60],
        retry_condition_fn=_may_pass,
    )


def _key_of(_: object, parameters: dict[str, Any]) -> str:
    return str(parameters["key"])


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed try is worth another: only what the tracking store may be the cause of."""
    try:
        state.result()
    except UserError:
        return False
    except Exception as error:
        return is_passing(error)
    return False


def _epochs(folder: Path) -> list[dict[str, Any]]:
    path = folder / "training.json"
    return list(read_json(path)["epochs"]) if path.is_file() else []


def _of_memory(peak: Peak) -> dict[str, float]:
    """Metrics in MiB; named for the process where it could not be told what the stage took."""
    found = {"peak_process_memory_mib" if peak.how == OF_PROCESS else "peak_memory_mib": peak.bytes / 2**20}
    return found if peak.device_bytes is None else found | {"peak_device_memory_mib": peak.device_bytes / 2**20}


def _of_the_epoch_kept(folder: Path) -> dict[str, float]:
    """What validation said of the epoch whose weights a training kept, of equal ones the last: its curve ends later."""
    from prorec_core.training.loop import TARGET

    record = folder / "training.json"
    epochs = [each for each in read_json(record)["epochs"] if TARGET in each] if record.is_file() else []
    if not epochs:
        return {}
    kept = max(epochs, key=lambda each: (each[TARGET], each["epoch"]))
    return {f"best_{TARGET}": kept[TARGET], "best_epoch": kept["epoch"]}
