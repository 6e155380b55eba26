"""One stage's life: cache key, MLflow run, manifest, upload, reference. All tasks are made of this.

Knows Prefect, MLflow and manifests; knows nothing of the method: each stage's body does.
"""

from __future__ import annotations

import inspect
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect import Task, get_run_logger
from prefect.states import Completed
from pydantic import BaseModel

from prorec_core.artifacts import (
    MANIFEST,
    SCHEMA_VERSION,
    ArtifactRef,
    Manifest,
    read_json,
    sha256_file,
    sha256_json,
    write_manifest,
)
from prorec_core.config import Experiment
from prorec_core.errors import UserError, one_line
from prorec_core.progress import Progress, Report, duration
from tasks import places, store
from tasks import tracking as tracked
from tasks.datasets import DataSet, data_sets
from tasks.events import Notice, StageEnded, StageProgress, StageStarted, StageStoppedError, tell
from tasks.pages import stage_page
from tasks.patience import is_passing
from tasks.prefect_run import PrefectRun, failed
from tasks.sources import source_hash
from tasks.stopping import stops_kept
from tasks.tracking import TrackedRun
from tasks.troubles import explained

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun

    from prorec_core.training.runtime import Runtime


_CACHED = "Cached"


class FlowTracking(BaseModel):
    """The MLflow experiment and parent run that a flow run's stages belong to.

    Attributes:
        experiment_id: the MLflow experiment.
        run_id: the parent run.
        again: how to run the whole again, as Markdown; by default the flow run itself can be.
    """

    experiment_id: str
    run_id: str
    again: str = ""


@dataclass(frozen=True)
class Work:
    """What a stage's body gets.

    Attributes:
        experiment: the whole experiment.
        inputs: a local folder with the verified files of each artifact that the stage reads, by stage.
        folder: an empty folder; what the body leaves there becomes the artifact.
        checkpoints: where it may keep what lets it go on after a crash.
        report: to be told how far it is.
        run: the stage's MLflow run, for what is no file of the artifact.
    """

    experiment: Experiment
    inputs: Mapping[str, Path]
    folder: Path
    checkpoints: Path
    report: Report
    run: TrackedRun

    def runtime(self) -> Runtime:
        """Where training runs, as the experiment says."""
        from prorec_core.training.runtime import make_runtime

        return make_runtime(self.experiment.device, self.report, self.checkpoints)


Body = Callable[[Work], Mapping[str, float] | None]
"""Does the stage's work by one call of `prorec_core`; may return metrics."""


@dataclass(frozen=True)
class Stage:
    """A stage as a Prefect task.

    Attributes:
        name: its name.
        reads: the stages whose artifacts it reads; "stage@side" where it reads one stage of several pipelines.
        body: its work.
        module: the module of the body; its imports tell which sources the result depends on.
        source_digest: what the result depends on besides configuration, sources and artifacts.
        publish: what is to be done once the artifact is stored; its result becomes tags of the run.
    """

    name: str
    reads: tuple[str, ...]
    body: Body
    module: str
    source_digest: Callable[[Experiment], str] | None = None
    publish: Callable[[Work], Mapping[str, str]] | None = None

    def key(self, experiment: Experiment, upstream: Mapping[str, ArtifactRef]) -> str:
        """The cache key: equal for two runs whose artifacts must be equal. Hexadecimal text.

        Raises:
            UserError: the source of the data cannot be read.
        """
        parts = {
            "stage": self.name,
            "schema_version": SCHEMA_VERSION[self.name],
            "config": experiment.stage_config(self.name),
            "upstream": {name: upstream[name].digest for name in self.reads},
            "data": self.source_digest(experiment) if self.source_digest else "",
            "source": source_hash((self.module,)),
            "store": tracked.identity(),
        }
        return sha256_json(parts)

    def run(
        self,
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
        tell(StageStarted(self.name))
        used = {name: upstream[name] for name in self.reads}
        key = self.key(experiment, used)

        def call(refresh: bool) -> State[Any]:
            task = _task(self).with_options(refresh_cache=refresh, result_storage=places.references())
            parameters = {"experiment": experiment, "upstream": used, "tracking": tracking, "key": key, "anew": refresh}
            with stops_kept():
                return cast("State[Any]", task(**parameters, return_state=True))

        with places.lock(key, lambda: self._notice("another run is making this artifact; waiting for it")):
            state = call(force)
            ref, problems = self._taken(state, key)
            cached = state.name == _CACHED and not problems
            if problems:
                self._notice(f"made again, since the stored artifact is not whole: {problems[0]}")
                damaged, ref = ref, store.as_ref(call(True).result(), self.name)
                if damaged:
                    store.mark_replaced(damaged, ref)
        assert ref is not None
        tell(StageEnded(ref, cached, time.monotonic() - begun))
        return ref

    def _taken(self, state: State[Any], key: str) -> tuple[ArtifactRef | None, list[str]]:
        """What a task run came to, and what is wrong with it if it is from the cache."""
        value = state.result()
        if state.name != _CACHED:
            return store.as_ref(value, self.name), []
        try:
            ref = store.as_ref(value, self.name)
        except ValueError as error:
            return None, [f"the cached reference cannot be read ({str(error).splitlines()[0]})"]
        if not store.is_of(ref, key):
            return None, ["the cached reference is another artifact's"]
        return ref, store.check(ref)

    def _notice(self, text: str) -> None:
        get_run_logger().warning("%s: %s", self.name, text)
        tell(Notice(f"{self.name}: {text}"))

    def _data_sets(self, work: Work, refs: Mapping[str, ArtifactRef]) -> Iterator[DataSet]:
        name = work.experiment.name
        if self.source_digest:
            source = work.experiment.data.path or work.experiment.data.source
            yield DataSet(f"{name}/source", self.source_digest(work.experiment), source, {}, None)
        if "preprocess" in refs:
            yield from data_sets(name, work.inputs["preprocess"], refs["preprocess"].uri)

    def execute(
        self, experiment: Experiment, upstream: dict[str, ArtifactRef], tracking: FlowTracking, key: str, anew: bool
    ) -> ArtifactRef | State[Any]:
        """Find the artifact where Prefect's cache does not know it, or make it and store it."""
        if not anew and (found := store.find(key)):
            message = f"Stored by MLflow run {found.run_id}"
            get_run_logger().info("%s; no reference to it was cached here", message)
            return Completed(name=_CACHED, message=message, data=found)
        refs = {name: store.as_ref(upstream[name], name.partition("@")[0]) for name in self.reads}
        inputs = {name: store.fetch(ref) for name, ref in refs.items()}
        place = PrefectRun.here()
        again = f"To run it again: {tracking.again or place.again}"

        def page(head: str, manifest: Manifest | None = None) -> str:
            written = (run.id, manifest) if manifest else None
            return stage_page(f"**{self.name}** of {experiment.name}: {head}", refs, tracking.run_id, place, written)

        run = TrackedRun.start(
            tracking.experiment_id,
            f"{self.name} · {experiment.name}",
            parent=tracking.run_id,
            tags={
                **place.tags,
                store.STAGE_TAG: self.name,
                store.KEY_TAG: key,
                tracked.NOTE_TAG: page("not finished"),
            },
        )
        folder = places.artifacts() / "work" / key
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        seen: set[tuple[int, str]] = set()

        def report(progress: Progress) -> None:
            run.metrics(progress.metrics, progress.step)
            seen.update((progress.step, name) for name in progress.metrics)
            tell(StageProgress(self.name, progress))

        work = Work(experiment, inputs, folder, places.checkpoints(key), report, run)
        try:
            place.show_mlflow(self.name, run.id, tracked.page(tracking.experiment_id, run.id))
            ref = self._make(work, refs, run, seen, page)
        except StageStoppedError as stopped:
            run.finish("KILLED", str(stopped), page(f"**stopped.** {stopped}"))
            shutil.rmtree(work.checkpoints, ignore_errors=True)
            raise
        except Exception as error:
            reason = one_line(explained(error) or error)
            run.finish("FAILED", reason, page(f"**failed.** {reason}\n\n{again}"))
            raise
        except BaseException:
            run.finish("KILLED", "stopped", page(f"**stopped.** {again}"))
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(work.checkpoints, ignore_errors=True)
        return ref

    def _make(
        self,
        work: Work,
        refs: Mapping[str, ArtifactRef],
        run: TrackedRun,
        seen: set[tuple[int, str]],
        page: Callable[[str, Manifest], str],
    ) -> ArtifactRef:
        begun = time.monotonic()
        config = work.experiment.stage_config(self.name)
        run.parameters(config)
        for data in self._data_sets(work, refs):
            run.data_set(data)
        measured = dict(self.body(work) or {})
        for epoch in _epochs(work.folder):
            # After a crash the epochs before it are known only from the artifact.
            step = int(epoch["epoch"])
            run.metrics({k: v for k, v in epoch.items() if k != "epoch" and (step, k) not in seen}, step)
        manifest = write_manifest(work.folder, self.name, config, {name: ref.digest for name, ref in refs.items()})
        run.upload(work.folder, last=MANIFEST)
        tags = dict(self.publish(work)) if self.publish else {}
        seconds = time.monotonic() - begun
        run.metrics({**measured, "seconds": seconds, "peak_memory_mib": _peak_memory_mib()})
        run.tags(
            {
                **tags,
                store.URI_TAG: run.artifact_uri,
                store.MANIFEST_TAG: sha256_file(work.folder / MANIFEST),
                store.DIGEST_TAG: manifest.digest,
                tracked.NOTE_TAG: page(f"done in {duration(seconds)}.", manifest),
            }
        )
        run.finish()
        return ArtifactRef(stage=self.name, digest=manifest.digest, run_id=run.id, uri=run.artifact_uri)


def stage(
    name: str,
    *,
    reads: tuple[str, ...] = (),
    source_digest: Callable[[Experiment], str] | None = None,
    publish: Callable[[Work], Mapping[str, str]] | None = None,
) -> Callable[[Body], Stage]:
    """Make a stage of the function that does its work."""

    def made(body: Body) -> Stage:
        return Stage(name, reads, body, body.__module__, source_digest, publish)

    return made


@cache
def _task(of: Stage) -> Task[..., Any]:
    def execute(
        experiment: Experiment, upstream: dict[str, ArtifactRef], tracking: FlowTracking, key: str, anew: bool
    ) -> ArtifactRef | State[Any]:
        try:
            return of.execute(experiment, upstream, tracking, key, anew)
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


def _peak_memory_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
