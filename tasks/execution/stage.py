"""What a stage is: what it reads, what decides its result, and the work it does. Its cache key is made of these.

Knows experiments, artifacts and sources; knows neither Prefect nor how a stage is run: the module `runner` does.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from prorec.tasks.execution.reads import declared, view
from prorec.tasks.execution.sources import source_hash
from prorec.tasks.tracking import mlflow_runs as tracked
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec_core.artifacts import ArtifactRef, sha256_json
from prorec_core.config import Experiment
from prorec_core.progress import Report

if TYPE_CHECKING:
    from prorec_core.training.runtime import Runtime


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
        experiment: the part of the experiment that the stage declared; to read anything else is an error.
        config: the values of that part by dotted name, as its key and its manifest hold them.
        inputs: a local folder with the verified files of each artifact that the stage reads, by stage.
        folder: an empty folder; what the body leaves there becomes the artifact.
        checkpoints: where it may keep what lets it go on after a crash.
        report: to be told how far it is.
        run: the stage's MLflow run, for what is no file of the artifact.
        made_with: on which kind of device and in which number format it was made; goes into the manifest.
    """

    experiment: Experiment
    config: Mapping[str, Any]
    inputs: Mapping[str, Path]
    folder: Path
    checkpoints: Path
    report: Report
    run: TrackedRun
    made_with: dict[str, str] = field(default_factory=dict)

    def runtime(self, precision: str = "float32") -> Runtime:
        """Where models run, as the experiment says.

        Args:
            precision: auto or float32, what the section of the stage says.
        """
        from prorec_core.training.runtime import make_runtime

        runtime = make_runtime(self.experiment.device, self.report, self.checkpoints)
        low = runtime.low_precision(precision)
        self.made_with.update(device=runtime.device.type, number_format="bfloat16" if low else "float32")
        return runtime


Body = Callable[[Work], Mapping[str, float] | None]
"""Does the stage's work by one call of `prorec_core`; may return metrics."""


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        name: its name.
        reads: the stages whose artifacts it reads; "stage@side" where it reads one stage of several pipelines.
        body: its work.
        module: the module of the body; its imports tell which sources the result depends on.
        config: the dotted names of all that it reads of an experiment.
        libraries: the distributions that decide its numbers.
        outside: digest of what the result depends on besides: the source of the data, an encoder's files.
        publish: what is to be done once the artifact is stored; its result becomes tags of the run.
        validates: whether it measures on validation users after each epoch, so that it can be tuned.
        version: of what it leaves; raised when files, or what they mean, change without a change of sources.
    """

    name: str
    reads: tuple[str, ...]
    body: Body
    module: str
    config: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    outside: Callable[[Experiment], str] | None = None
    publish: Callable[[Work], Mapping[str, str]] | None = None
    validates: bool = False
    version: int = 1

    def values(self, experiment: Experiment) -> dict[str, Any]:
        """All that it reads of an experiment, by dotted name, without what changes only where or how fast it runs."""
        return declared(experiment, self.config)

    def part(self, experiment: Experiment) -> Experiment:
        """The experiment as the body gets it: to read what was not declared is an error."""
        return view(experiment, self.config, self.name)

    def found_outside(self, experiment: Experiment) -> str:
        """The digest of what it depends on outside; nothing where it depends on nothing there.

        Raises:
            UserError: the source of the data cannot be read.
        """
        return self.outside(experiment) if self.outside else ""

    def key(self, experiment: Experiment, upstream: Mapping[str, ArtifactRef], outside: str | None = None) -> str:
        """The cache key: equal for two runs whose artifacts must be equal. Hexadecimal text.

        Args:
            experiment: the experiment.
            upstream: the artifacts that it reads, by the names in `reads`.
            outside: what `found_outside` gave, where it was asked already.

        Raises:
            UserError: the source of the data cannot be read.
        """
        several = any("@" in name for name in self.reads)
        parts = {
            "stage": self.name,
            "schema_version": self.version,
            "config": self.values(experiment),
            "upstream": {name: upstream[name].digest for name in self.reads},
            "outside": self.found_outside(experiment) if outside is None else outside,
            # Where it reads several pipelines their choices may differ: all implementations count.
            "source": source_hash((self.module,), None if several else experiment),
            "libraries": versions(self.libraries),
            "store": tracked.identity(),
        }
        return sha256_json(parts)


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of distributions, without what tells builds of one version apart (`+cpu`, `+cu130`)."""
    return {name: _version(name).partition("+")[0] for name in libraries}


@cache
def _version(name: str) -> str:
    return importlib.metadata.version(name)


def stage(
    name: str,
    *,
    reads: tuple[str, ...] = (),
    config: tuple[str, ...] = (),
    libraries: tuple[str, ...] = (),
    outside: Callable[[Experiment], str] | None = None,
    publish: Callable[[Work], Mapping[str, str]] | None = None,
    validates: bool = False,
    version: int = 1,
) -> Callable[[Body], Stage]:
    """Make a stage of the function that does its work; the arguments are those of `Stage`."""

    def made(body: Body) -> Stage:
        return Stage(name, reads, body, body.__module__, config, libraries, outside, publish, validates, version)

    return made
