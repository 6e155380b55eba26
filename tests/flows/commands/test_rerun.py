"""Which run `prorec rerun` takes when none is named."""

from __future__ import annotations

from pathlib import Path

from prorec.flows.commands.rerun import RERUN_BY_TAG, _find
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import EXPERIMENT_TAG, TrackedRun, client


def test_the_newest_that_failed_is_meant_also_where_a_newer_one_went_well(artifacts_folder: Path) -> None:
    experiment = mlflow_runs.experiment_id("demo")

    def ended(name: str, status: str) -> TrackedRun:
        run = TrackedRun.start(experiment, name, tags={EXPERIMENT_TAG: "demo"})
        run.finish(status)
        return run

    ended("old", "FAILED")
    failed = ended("failed", "FAILED")
    well = ended("well", "FINISHED")
    assert _find(None).info.run_id == failed.id
    for run in client().search_runs([experiment], "attributes.status = 'FAILED'"):
        client().set_tag(run.info.run_id, RERUN_BY_TAG, well.id)
    assert _find(None).info.run_id == well.id
