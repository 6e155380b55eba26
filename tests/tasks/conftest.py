"""A pipeline of two tiny stages with the real machinery around them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from prorec.tasks.execution.events import Event, StageEnded, listening
from prorec.tasks.execution.runner import run_stage
from prorec.tasks.execution.stage import FlowTracking, Stage, Work
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment


@pytest.fixture
def tracked_folder(artifacts_folder: Path, empty_database: Path) -> Path:
    """A folder of artifacts of the test's own, with its database."""
    shutil.copyfile(empty_database, artifacts_folder / "mlflow.db")
    return artifacts_folder


@dataclass
class TinyPipeline:
    """Two stages, the second reading the first, run as a flow; records what happened."""

    stages: tuple[Stage, ...]
    events: list[Event] = field(default_factory=list)

    def run(self, experiment: Experiment | None = None, force: str = "") -> dict[str, ArtifactRef]:
        """Run both; `events` then holds what this run told."""
        from prefect import flow

        # Not of its type: Prefect would make the JSON schema of all fields anew for each flow.
        @flow(name="tiny")
        def tiny(experiment: Any) -> dict[str, ArtifactRef]:
            mlflow_experiment = mlflow_runs.experiment_id(experiment.name)
            parent = TrackedRun.start(mlflow_experiment, "parent")
            place = FlowTracking(experiment_id=mlflow_experiment, run_id=parent.id)
            refs: dict[str, ArtifactRef] = {}
            for stage in self.stages:
                refs[stage.name] = run_stage(stage, experiment, place, refs, force=stage.name == force)
            parent.finish()
            return refs

        self.events.clear()
        with listening(self.events.append):
            return tiny(experiment or Experiment())

    @property
    def cached(self) -> dict[str, bool]:
        """Which stages of the last run came from the cache."""
        return {event.ref.stage: event.cached for event in self.events if isinstance(event, StageEnded)}


def write_seed(work: Work) -> dict[str, float]:
    """A first stage: leaves a seed of the data, one file below a folder."""
    (work.folder / "seed.txt").write_text(str(work.experiment.data.ties_seed))
    (work.folder / "below").mkdir()
    (work.folder / "below" / "more.txt").write_text("more")
    return {"written": 1.0}


def double_it(work: Work) -> None:
    """A second stage: leaves what it read, twice."""
    text = (work.inputs["preprocess"] / "seed.txt").read_text()
    (work.folder / "doubled.txt").write_text(text * 2)


@pytest.fixture
def make_tiny(prefect_api: str, tracked_folder: Path) -> Callable[..., TinyPipeline]:
    """Build tiny pipelines in a store of the test's own."""

    def make(
        first: Callable[[Work], dict[str, float] | None] = write_seed,
        second: Callable[[Work], dict[str, float] | None] = double_it,
    ) -> TinyPipeline:
        return TinyPipeline(
            (
                Stage("preprocess", (), first, "prorec.tasks.stages.preprocess", ("data",)),
                Stage(
                    "train_collaborative",
                    ("preprocess",),
                    second,
                    "prorec.tasks.stages.train_collaborative",
                    ("collaborative", "seed"),
                ),
            )
        )

    return make
