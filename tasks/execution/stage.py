"""What a stage is: what it reads, what decides its result, and the work it does. Its cache key is made of these.

Knows experiments, artifacts and sources; knows neither Prefect nor how a stage is run: the module `runner` does.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from prorec.tasks.execution.needs import Need
from prorec.tasks.execution.reads import declared, view
from prorec.tasks.execution.sources import source_hash
from prorec.tasks.tracking import mlflow_runs as tracked
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec_core.artifacts import ArtifactRef, sha256_json
from prorec_core.config import Experiment
from prorec_core.fitting import open_fields
from prorec_core.stages.work import StageWork


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


class OpenFieldError(Exception):
    """A stage was asked for whose numbers were left to the data, and nobody had found them yet."""


@dataclass(frozen=True)
class Work(StageWork):
    """What a stage's body gets of a run that is tracked; of the experiment, to read what is not declared is an error.

    Attributes:
        run: the stage's MLflow run, for what is no file of the artifact.
    """

    run: TrackedRun


Body = Callable[[Work], Mapping[str, float] | None]
"""Does the stage's work by one call of `prorec_core`; may return metrics."""

Memory = Callable[[Experiment, Mapping[str, Path]], Need]
"""Estimates what a stage needs, from the experiment and a local folder for each artifact that it reads."""


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        name: its name.
        reads: the stages whose artifacts it reads; "stage@side" where it reads one stage of several pipelines.
        body: its work.
        module: the module of the body; its imports tell which sources the result depends on.
        config: the dotted names of all that it reads of an experiment.
        besides: dotted names that it reads too, where an experiment asks for that.
        libraries: the distributions that decide its numbers.
        outside: digest of what the result depends on besides: the source of the data, an encoder's files.
        publish: what is to be done once the artifact is stored; its result becomes tags of the run.
        validates: whether it measures on validation users after each epoch, so that it can be tuned.
        version: of what it leaves; raised when files, or what they mean, change without a change of sources.
        memory: what it needs of it, from an experiment and the folders of what it reads; decides nothing.
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
    memory: Memory | None = None
    besides: Callable[[Experiment], tuple[str, ...]] = lambda _: ()

    def names(self, experiment: Experiment) -> tuple[str, ...]:
        """The dotted names of all that it reads of this experiment."""
        return (*self.config, *self.besides(experiment))

    def values(self, experiment: Experiment) -> dict[str, Any]:
        """All that it reads of an experiment, by dotted name, without what changes only where or how fast it runs."""
        return declared(experiment, self.names(experiment))

    def part(self, experiment: Experiment) -> Experiment:
        """The experiment as the body gets it: to read what was not declared is an error."""
        return view(experiment, self.names(experiment), self.name)

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
            OpenFieldError: it reads a number that is still left to the data.
        """
        for field in open_fields(experiment):
            if any(f"{field}.".startswith(f"{name}.") for name in self.config):
                raise OpenFieldError(f"the stage '{self.name}' reads '{field}', which is still open")
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
    memory: Memory | None = None,
    besides: Callable[[Experiment], tuple[str, ...]] = lambda _: (),
) -> Callable[[Body], Stage]:
    """Make a stage of the function that does its work; the arguments are those of `Stage`."""

    def made(body: Body) -> Stage:
        return Stage(
            *(name, reads, body, body.__module__, config, libraries, outside, publish),
            *(validates, version, memory, besides),
        )

    return made
