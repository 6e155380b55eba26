"""Which run `prorec rerun` takes when none is named, and what an experiment of an earlier version is today."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prorec.flows.commands.rerun import RERUN_BY_TAG, RERUN_OF_TAG, _experiment, _find
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import EXPERIMENT_FILE, EXPERIMENT_TAG, FOLDER_TAG, TrackedRun, client
from prorec_core import versions
from prorec_core.config import Experiment
from prorec_core.errors import UserError

LONGEST_PLACE = 4096
"""Characters of a `Place`, by which a schema tells it."""
KEPT = Path(__file__).resolve().parents[2] / "kept"


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


def test_what_was_repeated_is_meant_no_more(artifacts_folder: Path) -> None:
    experiment = mlflow_runs.experiment_id("demo")

    def ended(name: str, status: str, **tags: str) -> str:
        run = TrackedRun.start(experiment, name, tags={EXPERIMENT_TAG: "demo", **tags})
        run.finish(status)
        return run.id

    old = ended("old", "FAILED")
    first = ended("first", "FAILED")
    again = ended("again", "FAILED", **{RERUN_OF_TAG: first})
    assert _find(None).info.run_id == again
    ended("well", "FINISHED", **{RERUN_OF_TAG: again})
    assert _find(None).info.run_id == old, "first was repeated too, by one that was"
    attempts = [
        ended(f"attempt {number}", status, **{mlflow_runs.FLOW_RUN_TAG: "of a deployment"})
        for number, status in ((1, "FAILED"), (2, "FINISHED"))
    ]
    assert _find(None).info.run_id == old, "a worker retried it"
    assert _find(attempts[0]).info.run_id == attempts[0]


def test_an_experiment_of_each_version_is_run_as_it_was_meant(artifacts_folder: Path) -> None:
    experiment = mlflow_runs.experiment_id("kept")
    for version in range(versions.VERSION + 1):
        run = TrackedRun.start(experiment, "kept", tags={EXPERIMENT_TAG: "kept"})
        run.text(EXPERIMENT_FILE, (KEPT / str(version) / EXPERIMENT_FILE).read_text())
        found = _experiment(client().get_run(run.id))
        assert (found.name, found.generator.dim, found.data.new_items) == ("kept", 8, 0.1)
        assert found.data.similar_ids == ("apart" if version == 0 else "error")


def test_files_are_those_that_were_meant_where_the_run_was_started(artifacts_folder: Path, tmp_path: Path) -> None:
    """`prorec rerun` from another folder must not read another file of that name."""
    (tmp_path / "encoder").mkdir()
    settings = {
        "data": {"source": "tables", "path": "shop"},
        "text": {"model": "encoder", "vectors": [{"name": "image", "path": "vectors.parquet"}, {"name": "sound"}]},
        "quantize": {"table": "~/codes.parquet"},
        "generator": {"ranker_file": "/ranker.json"},
        "train_on_validation": True,
        "evaluate": {"fusion_weights": [1]},
    }
    given = Experiment.model_validate({"name": "kept", **settings})
    for folder in (tmp_path, None):
        tags = {EXPERIMENT_TAG: "kept"} | ({FOLDER_TAG: str(folder)} if folder else {})
        run = TrackedRun.start(mlflow_runs.experiment_id("kept"), "kept", tags=tags)
        run.text(EXPERIMENT_FILE, json.dumps(versions.stored(given.model_dump(mode="json"))))
        found = _experiment(client().get_run(run.id))
        if folder is None:
            assert found == given, "of earlier runs nothing is known"
            continue
        assert (found.data.path, found.text.model) == (str(folder / "shop"), str(folder / "encoder"))
        assert [each.path for each in found.text.vectors] == [str(folder / "vectors.parquet"), None]
        assert (found.quantize.table, found.generator.ranker_file) == ("~/codes.parquet", "/ranker.json")


def test_every_field_that_may_be_a_path_is_looked_at() -> None:
    """A new one has its place in `with_files_in`, unless it names no file."""

    def places(schema: Any, name: str = "") -> Iterator[str]:
        if isinstance(schema, dict):
            if schema.get("maxLength") == LONGEST_PLACE:
                yield name
            for key, inner in schema.items():
                yield from places(inner, name if key in ("anyOf", "items") else key)
        elif isinstance(schema, list):
            for inner in schema:
                yield from places(inner, name)

    files = {"path", "model", "table", "ranker_file", "lists_file"}
    assert set(places(Experiment.model_json_schema())) == files | {"start_from", "address"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"version": versions.VERSION + 1}, "kept: experiment.json: a newer version of prorec wrote this"),
        ({"name": "kept"}, "(seed: the field is missing). Make it again with this version, or use the one that made"),
        ({"name": "kept", "gone": 1}, "(gone: Extra inputs are not permitted)"),
    ],
)
def test_an_experiment_that_cannot_be_read_is_one_line(
    artifacts_folder: Path, record: dict[str, object], message: str
) -> None:
    run = TrackedRun.start(mlflow_runs.experiment_id("kept"), "kept", tags={EXPERIMENT_TAG: "kept"})
    run.text(EXPERIMENT_FILE, json.dumps(record))
    with pytest.raises(UserError) as raised:
        _experiment(client().get_run(run.id))
    assert message in str(raised.value) and "\n" not in str(raised.value)
