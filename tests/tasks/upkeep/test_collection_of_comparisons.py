"""Comparisons beside `prorec artifacts gc`: what they use while they run, what they leave however they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from prefect import flow

from prorec.flows.commands.artifacts import _described, _find
from prorec.flows.variant import run_variant, sharing
from prorec.tasks import comparison
from prorec.tasks.execution.stage import FlowTracking, Stage, Work
from prorec.tasks.registry import models, recommenders
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.upkeep import collection
from prorec.tasks.upkeep.collection import collect, make_plan
from prorec.tasks.upkeep.retention import take_inventory
from prorec_core.artifacts import MANIFEST, ArtifactRef, write_json
from prorec_core.config import Experiment
from prorec_core.data.sequences import from_lists
from prorec_core.evaluation.stage import Evaluation
from prorec_core.evaluation.variants import Measured, compare_variants
from prorec_core.metrics.measuring import rank_metrics
from prorec_core.metrics.scorers import GENERATOR
from prorec_core.training.checkpoint import save_tensors

USERS = 20
NOT_APPLIED = "generator.warm_start (wants integrated codes)"


def metrics() -> dict[str, Any]:
    values = {"generative": rank_metrics(np.ones(USERS, np.int32), 10)}
    return {
        "protocol": {"seed": 0, "history_masked": True},
        "test": values,
        "validation": values,
        "recommended": "generative",
    }


def left() -> list[str]:
    return [kind for kind, _, _ in make_plan(take_inventory(0), 0).everything()]


def keep_a_comparison(upstream: Mapping[str, str]) -> TrackedRun:
    """A comparison that has left its table and goes on."""
    ranks = {"generative": np.ones(USERS, np.int32)}
    one = Measured(
        "prorec", 0, GENERATOR, metrics(), ranks, {}, 0, run={"run_id": "r", "page": None}, not_applied=[NOT_APPLIED]
    )
    lists = [np.array([0, 1, 2, user % 5 + 3], np.int32) for user in range(USERS)]
    found = compare_variants([one], "prorec", from_lists(lists, 8), 10)
    assert found["variants"]["prorec"]["not_applied"] == [NOT_APPLIED]
    found["protocol"] |= {"items": 8, "test_users": USERS, "validation_users": USERS, "history_masked": False,
                          "list_length": 10, "beams": 10, "ties": "input", "ties_seed": 0}  # fmt: skip
    found["variants"]["prorec"] |= {"about": "", "set": {}}
    found["failed"] = []
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "comparison")
    comparison.keep(run, Experiment(), found, {}, upstream)
    return run


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_comparison_that_did_not_succeed_keeps_its_report(make_tiny: Callable[..., Any], status: str) -> None:
    refs = make_tiny().run()
    run = keep_a_comparison({"prorec@0": refs["train_collaborative"].digest})
    assert store.verify_all() == (2, [])
    run.finish(status, "one variant failed")
    assert store.verify_all() == (3, [])
    inventory = take_inventory(30)
    assert all(inventory.kept_by(each) for each in inventory.stored) and len(inventory.stored) == 3
    assert make_plan(inventory, 30).artifacts == [] and "left-over files of runs" not in left()
    assert {each.experiment for each in inventory.stored} == {"demo"}
    (found,) = _find(run.id, inventory)
    assert found.ref.stage == "compare" and list(_described(found, inventory, short=False))


def _write(work: Work) -> None:
    (work.folder / "seed.txt").write_text(f"{work.experiment.seed} of {sorted(work.inputs)}")


def _register(work: Work) -> dict[str, str]:
    """Register a model of one file."""
    experiment = work.run.experiment
    model = client().create_logged_model(experiment, name="generator", source_run_id=work.run.id)
    client().log_model_artifacts(model.model_id, str(work.folder))
    manifest = store.sha256_file(work.folder / "manifest.json")
    uri = models.register("prorec-demo", model.model_id, work.run.id, {store.MODEL_MANIFEST_TAG: manifest})
    # As after a kill right here: the version is there, and its run does not know it.
    assert recommenders.find(uri).model_id == model.model_id and recommenders.find(uri).manifest_sha256 == manifest
    return {store.MODEL_TAG: model.model_id, store.MODEL_MANIFEST_TAG: manifest, store.MODEL_URI_TAG: uri}


@pytest.fixture
def run_tiny_variant(
    prefect_api: str, tracked_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Run a comparison of one variant with three tiny stages; the body of the last is the test's own."""

    def run(scorer: str = GENERATOR, sides: int = 1, last: Callable[[Work], None] = _write) -> dict[str, Any]:
        evaluate = "evaluate" if sides == 1 else "evaluate_two_stream"
        generator = "train_generator" if sides == 1 else "train_generator@first"
        stages = (
            Stage("preprocess", (), _write, "prorec.tasks.stages.preprocess", ("name", "seed")),
            Stage(
                "train_generator",
                ("preprocess",),
                _write,
                "prorec.tasks.stages.train_generator",
                ("name", "seed"),
                publish=_register,
            ),
            Stage(evaluate, ("preprocess", generator), last, "prorec.tasks.stages.evaluate", ("name", "seed")),
            Stage("report", (evaluate,), _write, "prorec.tasks.stages.report", ("name", "seed")),
        )
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_runs.paths.tracking_uri())
        monkeypatch.setattr("prorec.flows.variant.pipeline_of", {scorer: stages}.__getitem__)
        measured = Measured("prorec", 0, GENERATOR, metrics(), {}, {}, 0)
        monkeypatch.setattr(comparison, "gather", lambda *_: measured)
        monkeypatch.setattr(models, "_source_digest", lambda _: "")
        above = TrackedRun.start(mlflow_runs.experiment_id("demo"), "comparison")
        experiments = dict(zip(("", "first", "second"), [Experiment()] * (1 if sides == 1 else 3), strict=False))

        @flow(name="comparison of one")
        def whole() -> None:
            with sharing():
                place = FlowTracking(experiment_id=above.experiment, run_id=above.id)
                run_variant("prorec", 0, scorer, experiments, place)

        whole()
        (variant,) = mlflow_runs.search(f"tags.`{mlflow_runs.VARIANT_TAG}` = 'prorec'")
        return {"above": above, "variant": variant}

    return run


def test_what_a_variant_uses_is_known_while_it_goes_on(run_tiny_variant: Callable[..., Any]) -> None:
    seen: list[dict[str, Any]] = []

    def last(work: Work) -> None:
        (variant,) = mlflow_runs.search(f"tags.`{mlflow_runs.VARIANT_TAG}` = 'prorec'")
        seen.append(models.named_by(variant.data.tags))
        _write(work)

    made = run_tiny_variant("two_stream", 3, last)
    sides = {"train_generator.first", "train_generator.second"}
    assert [set(each) for each in seen] == [{"preprocess", *sides}]
    found = _find(made["variant"].info.run_id, take_inventory(0))
    stages = ["evaluate_two_stream", "preprocess", "report", "train_generator"]
    assert sorted(each.ref.stage for each in found) == stages
    # The variant is done and the comparison is not: what its grandchildren made is of use, named or not.
    for stage in ("evaluate_two_stream", "report"):
        for tag in (models.run_tag(stage), models.digest_tag(stage)):
            client().delete_tag(made["variant"].info.run_id, tag)
    inventory = take_inventory(0)
    assert len(inventory.stored) == 4 and left() == []
    assert {phrase for each in inventory.stored for phrase in inventory.kept_by(each)} == {
        f"running {made['above'].id}"
    }
    made["above"].finish()
    another = TrackedRun.start(mlflow_runs.experiment_id("demo"), "reads a stream")
    (generator,) = (each.ref for each in inventory.stored if each.ref.stage == "train_generator")
    another.tags(models.stage_tags({"train_generator.second": generator}))
    planned = [each.ref.stage for each in make_plan(take_inventory(0), 0).artifacts]
    assert sorted(planned) == ["evaluate_two_stream", "report"]


def test_a_version_of_a_comparison_is_evaluated_and_keeps_its_model_alone(
    run_tiny_variant: Callable[..., Any],
) -> None:
    made = run_tiny_variant()
    (version,) = models.versions()
    assert version.tags[models.RUN_TAG] == made["variant"].info.run_id
    assert version.tags["test.ndcg_at_10"] == "1.000000" and version.artifact("evaluate")
    assert left() == []
    made["above"].finish()
    kinds = [f"artifacts of {stage}" for stage in ("evaluate", "preprocess", "report", "train_generator")]
    assert sorted(set(left()) - {"checkpoints"}) == kinds, "its model stays"
    client().set_registered_model_alias("prorec-demo", "champion", "1")
    assert not [kind for kind in left() if kind in kinds]
    client().delete_registered_model_alias("prorec-demo", "champion")
    own = TrackedRun.start(mlflow_runs.experiment_id("demo"), "of the experiment itself")
    own.tags({models.MODEL_OF_RUN_TAG: version.uri})
    own.finish()
    assert not [kind for kind in left() if kind in kinds]


def test_a_run_that_only_looked_ended_loses_nothing(tracked_folder: Path, tmp_path: Path) -> None:
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "at work", tags={store.STAGE_TAG: "train_generator"})
    write_json(tmp_path / "files" / "model.json", 1)
    run.upload(tmp_path / "files", last="model.json")
    client().set_terminated(run.id)
    plan = make_plan(take_inventory(0), 0)
    assert [leftover.kind for leftover in plan.others] == ["left-over files of runs"]
    client().update_run(run.id, "RUNNING")
    assert (collect(plan).spared, left()) == (1, [])
    assert (
        client().list_artifacts(run.id, "artifact")
        and collection.store.COLLECTED_TAG not in client().get_run(run.id).data.tags
    )


@pytest.mark.parametrize("side", ["", "first"])
def test_what_a_generator_did_without_is_gathered(side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in ("train_generator", "evaluate"):
        (tmp_path / stage).mkdir()
    write_json(tmp_path / "train_generator" / "config.json", {"not_applied": [NOT_APPLIED]})
    write_json(tmp_path / "train_generator" / MANIFEST, {"made_with": {"device": "cpu", "number_format": "float32"}})
    monkeypatch.setattr(store, "fetch", lambda ref: tmp_path / ref.stage)
    monkeypatch.setattr(Evaluation, "load", lambda _: Evaluation(metrics(), pa.table({"user": [0], "split": ["test"]})))
    monkeypatch.setattr(comparison, "_embedding", lambda _: "semantic")
    monkeypatch.setattr(comparison, "_seconds", lambda _: 0.0)
    monkeypatch.setattr(comparison, "_parameters", lambda _, **__: 0)
    refs = {
        stage: ArtifactRef(stage=stage, digest="0" * 64, run_id="", uri="") for stage in ("train_generator", "evaluate")
    }
    named = {
        "evaluate": refs["evaluate"],
        f"train_generator@{side}" if side else "train_generator": refs["train_generator"],
    }
    told = comparison.gather("semantic", 0, GENERATOR, named, {}).not_applied
    assert told == [f"{NOT_APPLIED} in the first stream" if side else NOT_APPLIED]


def test_what_draws_reports_is_no_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in ("evaluate_counts", "report_counts"):
        (tmp_path / stage).mkdir()
    monkeypatch.setattr(store, "fetch", lambda ref: tmp_path / ref.stage)
    monkeypatch.setattr(Evaluation, "load", lambda _: Evaluation(metrics(), pa.table({"user": [0], "split": ["test"]})))
    monkeypatch.setattr(comparison, "_seconds", lambda ref: {"evaluate_counts": 5.0, "report_counts": 40.0}[ref.stage])
    refs = {
        stage: ArtifactRef(stage=stage, digest="0" * 64, run_id=stage, uri="")
        for stage in ("evaluate_counts", "report_counts")
    }
    assert comparison.gather("popularity", 0, "popularity", refs, {}).seconds == {"evaluate_counts": 5.0}


def test_a_stream_needs_no_ranker_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"weights": torch.zeros(3, 4), "ranker.texts": torch.zeros(100)}
    save_tensors(tmp_path / "model.safetensors", tensors)
    monkeypatch.setattr(comparison, "_embedding", lambda _: "semantic")
    monkeypatch.setattr(comparison, "read_quantized", lambda *_: np.zeros((5, 2)))
    counted = [comparison._parameters({"train_generator": tmp_path}, with_ranker=on) for on in (True, False)]
    assert counted == [122, 22]
