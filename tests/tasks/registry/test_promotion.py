"""Promotion: better or equal versions become the champion, worse and incomparable ones do not."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest

from prorec.tasks.local import paths
from prorec.tasks.registry import models, promotion
from prorec.tasks.registry.recommenders import CHAMPION
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec_core.artifacts import MANIFEST, ArtifactRef, sha256_file, write_json, write_manifest, write_parquet
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Split
from prorec_core.errors import UserError
from prorec_core.metrics.measuring import rank_metrics
from tests.data_sets import data_set

NAME = "prorec-demo"


def dataset(n_users: int = 200, last: int = 0) -> Dataset:
    """Users with five items each; `last` changes the test item of the first user."""
    lists = [np.array([0, 1, 2, 3, user % 4 + 4], np.int32) for user in range(n_users)]
    lists[0][-1] += last
    return data_set(lists, 10)


def store_artifact(stage: str, folder: Path, experiment: str, upstream: dict[str, str], **tags: str) -> ArtifactRef:
    """Store the files of a folder as a stage's run does."""
    manifest = write_manifest(folder, stage, {}, upstream)
    run = TrackedRun.start(experiment, stage, tags={store.STAGE_TAG: stage, **tags})
    run.upload(folder, last=MANIFEST)
    run.tags(store.tags_of(run.artifact_uri, folder, manifest))
    run.finish()
    return ArtifactRef(stage=stage, digest=manifest.digest, run_id=run.id, uri=run.artifact_uri)


def log_model(folder: Path, experiment: str, run_id: str, content: str) -> tuple[str, str]:
    """A logged model of one file; returns its id and the hash of its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.txt").write_text(content)
    write_manifest(folder, "train_generator", {}, {})
    model = client().create_logged_model(experiment, name="generator", source_run_id=run_id)
    client().log_model_artifacts(model.model_id, str(folder))
    client().finalize_logged_model(model.model_id, "READY")
    return model.model_id, sha256_file(folder / MANIFEST)


def make_version(
    folder: Path,
    ranks: list[int],
    *,
    data: Dataset | None = None,
    fused: bool = True,
    masked: bool = True,
    memory: bool = False,
    start_from: str | None = None,
    **protocol: int,
) -> tuple[str, str]:
    """A finished run with an evaluated version; returns the run's id and the version's URI.

    Args:
        folder: an empty folder to work in.
        ranks: each target's rank by the scorer that is served.
        data: the data set.
        fused: whether that scorer is `fused`; else `generative`.
        masked: whether histories were left out.
        memory: whether the validation items were trained on.
        start_from: the version that its training went on from.
        protocol: what else its protocol says.
    """
    data = data or dataset(len(ranks))
    experiment = mlflow_runs.experiment_id("demo")
    run = TrackedRun.start(experiment, "demo")
    parent = {"mlflow.parentRunId": run.id}
    parts = {stage: folder / stage for stage in ("preprocess", "train_generator", "evaluate", "model")}
    for part in parts.values():
        part.mkdir(parents=True)
    data.save(parts["preprocess"])
    preprocess = store_artifact("preprocess", parts["preprocess"], experiment, {}, **parent)
    write_json(parts["train_generator"] / "model.json", ranks)
    model_id, manifest = log_model(parts["model"], experiment, run.id, str(ranks))
    tags = {store.MODEL_TAG: model_id, store.MODEL_MANIFEST_TAG: manifest}
    upstream = {"preprocess": preprocess.digest}
    generator = store_artifact("train_generator", parts["train_generator"], experiment, upstream, **tags, **parent)
    uri = models.register(NAME, model_id, generator.run_id, {store.MODEL_MANIFEST_TAG: manifest})
    client().set_tag(generator.run_id, store.MODEL_URI_TAG, uri)

    found = np.array(ranks, np.int32)
    owners = data.sequences.owners_of(Split.TEST)
    values = rank_metrics(found, 10, owners)
    scorer = "fused" if fused else "generative"
    metrics = {
        "test": {scorer: values, "popularity": rank_metrics(found * 0, 10)},
        "validation": {scorer: values},
        "recommended": scorer,
        "protocol": {
            "test_users": len(ranks),
            "history_masked": masked,
            "split": "leave-one-out",
            **({"trained_on_validation": True} if memory else {}),
            **protocol,
        },
    }
    write_json(parts["evaluate"] / "metrics.json", metrics)
    table = pa.table(
        {
            "user": owners,
            "target": data.sequences.targets(Split.TEST),
            "split": ["test"] * len(ranks),
            f"rank_{scorer}": found,
        }
    )
    write_parquet(parts["evaluate"] / "ranks.parquet", table)
    upstream["train_generator"] = generator.digest
    evaluate = store_artifact("evaluate", parts["evaluate"], experiment, upstream, **parent)
    refs = {"preprocess": preprocess, "train_generator": generator, "evaluate": evaluate}
    models.note_evaluation(Experiment(start_from=start_from), uri, refs, run, metrics)
    run.tags({**models.stage_tags(refs), models.MODEL_OF_RUN_TAG: uri})
    run.finish()
    return run.id, uri


@pytest.fixture(autouse=True)
def tracked_here(tracked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow sets this variable when a version is registered.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())


GOOD, BAD = [1] * 200, [0] * 200
MIXED = [1, 0] * 100
OTHER_MIXED = [0, 1] * 100


def champion() -> str | None:
    found = models.holder(NAME, CHAMPION)
    return found.uri if found else None


def promote(text: str, *, anyway: bool = False) -> promotion.Judgement:
    judged = promotion.judge(text)
    promotion.promote(judged, anyway=anyway)
    return judged


def test_the_first_needs_no_champion_and_a_better_one_follows(tmp_path: Path) -> None:
    _, first = make_version(tmp_path / "1", MIXED)
    run, second = make_version(tmp_path / "2", GOOD)
    assert promote(first).holder is None
    assert champion() == first
    judged = promote(run)
    assert champion() == second
    assert judged.differences["recall_at_10"]["difference"] == 0.5 and not judged.objection
    tags = models.named(second).tags
    assert tags["prorec.promoted.over"] == "prorec-demo/1" and tags["prorec.promoted.anyway"] == "no"
    assert tags["prorec.promoted.recall_at_10"].startswith("+0.5000 (95% interval +0.4")
    assert promotion.judge("prorec-demo@champion").already


def test_what_another_machine_has_promoted_since_stays(tmp_path: Path) -> None:
    """Two machines share a registry and no lock: each judges, then promotes."""
    _, first = make_version(tmp_path / "1", BAD)
    _, second = make_version(tmp_path / "2", GOOD)
    _, third = make_version(tmp_path / "3", MIXED)
    none = promotion.judge(second)
    promote(first)
    with pytest.raises(UserError, match=r"prorec-demo/1 has become the champion since this one was held against none"):
        promotion.promote(none, anyway=True)
    judged = promotion.judge(third)
    promote(second)
    with pytest.raises(UserError, match=r"demo/2 has become the champion .* prorec-demo/1\. Promote it again"):
        promotion.promote(judged, anyway=False)
    assert champion() == second and "prorec.promoted.at" not in models.named(third).tags


def test_a_worse_one_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    _, first = make_version(tmp_path / "1", GOOD)
    _, second = make_version(tmp_path / "2", MIXED)
    promote(first)
    with pytest.raises(
        UserError, match=r"demo/2 is worse than the champion prorec-demo/1 .* 200 test users: Recall@10 -0.5"
    ):
        promote(second)
    assert champion() == first
    promote("prorec-demo/2", anyway=True)
    assert champion() == second
    assert "is worse than" in models.named(second).tags["prorec.promoted.anyway"]


def test_one_that_is_worse_by_chance_passes(tmp_path: Path) -> None:
    _, first = make_version(tmp_path / "1", MIXED)
    _, second = make_version(tmp_path / "2", [0, 0, *OTHER_MIXED[2:]])
    promote(first)
    judged = promote(second)
    assert judged.differences["recall_at_10"]["difference"] < 0 and champion() == second


def test_the_scorer_that_is_served_is_compared(tmp_path: Path) -> None:
    _, first = make_version(tmp_path / "1", BAD)
    _, second = make_version(tmp_path / "2", GOOD, fused=False)
    promote(first)
    judged = promote(second)
    assert judged.challenger.scorer == "generative" and judged.champion is not None
    assert judged.champion.scorer == "fused" and judged.differences["ndcg_at_10"]["difference"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": dataset(200, last=1)}, "1 of 200 users have another test item"),
        ({"data": dataset(201), "ranks": [1] * 201}, "1 users only the challenger has"),
        ({"masked": False}, "history_masked is False for the challenger, True for the champion"),
    ],
)
def test_other_tests_are_not_compared(tmp_path: Path, change: dict[str, object], message: str) -> None:
    _, first = make_version(tmp_path / "1", BAD)
    _, second = make_version(tmp_path / "2", **{"ranks": GOOD, **change})  # type: ignore[arg-type]
    promote(first)
    with pytest.raises(UserError, match=message):
        promote(second)
    judged = promote(second, anyway=True)
    assert not judged.differences and champion() == second


def test_a_champion_whose_evaluation_is_gone_can_be_replaced(tmp_path: Path) -> None:
    _, first = make_version(tmp_path / "1", GOOD)
    _, second = make_version(tmp_path / "2", BAD)
    promote(first)
    evaluation = models.named(first).artifact("evaluate")
    assert evaluation is not None
    (store.fetch(evaluation) / "metrics.json").unlink()
    with pytest.raises(UserError, match="the champion's evaluation cannot be read"):
        promote(second)
    promote(second, anyway=True)
    assert champion() == second


def test_what_cannot_be_promoted_is_refused(tmp_path: Path) -> None:
    experiment = mlflow_runs.experiment_id("demo")
    going = TrackedRun.start(experiment, "going")
    failed = TrackedRun.start(experiment, "failed", tags={"prefect.flow_run_id": str(uuid4())})
    failed.finish("FAILED")
    without = TrackedRun.start(experiment, "without a model")
    without.finish()
    flow_run = client().get_run(failed.id).data.tags["prefect.flow_run_id"]
    for text, message in (
        (going.id, "the run has not ended well: it is RUNNING"),
        (failed.id, "it is FAILED"),
        (flow_run, "it is FAILED"),
        (without.id, "made no model that was evaluated"),
        ("nothing", "there is no such run, nor such a version"),
        ("prorec-demo/1", "there is no such version of a model"),
        ("prorec-demo@champion", "there is no such version of a model"),
    ):
        with pytest.raises(UserError, match=message):
            promotion.judge(text)
    _, uri = make_version(tmp_path / "1", GOOD)
    version = models.named(uri)
    again = models.register(NAME, version.model_id, version.run_id, {})
    with pytest.raises(UserError, match="prorec-demo/2: it was never evaluated"):
        promotion.judge(again)
    location = Path(client().get_logged_model(version.model_id).artifact_location)
    (location / "weights.txt").write_text("other")
    with pytest.raises(UserError, match=r"weights.txt: .*--force train_generator"):
        promotion.judge(uri)


def test_a_flow_run_and_a_stage_name_the_run_of_the_experiment(tmp_path: Path) -> None:
    run, uri = make_version(tmp_path / "1", GOOD)
    flow_run = str(uuid4())
    client().set_tag(run, "prefect.flow_run_id", flow_run)
    stage = models.named(uri).run_id
    for text in (run, flow_run, stage, uri, "prorec-demo/1"):
        assert promotion.judge(text).challenger.version.uri == uri


def test_a_version_carries_what_was_measured_and_keeps_it(tmp_path: Path) -> None:
    run, uri = make_version(tmp_path / "1", MIXED)
    version = models.named(uri)
    assert version.tags["test.recall_at_10"] == "0.500000" and version.tags["prorec.seed"] == "0"
    logged = {metric.key: metric.value for metric in client().get_logged_model(version.model_id).metrics}
    assert logged["test/fused/recall_at_10"] == 0.5 and logged["test/popularity/recall_at_10"] == 0
    assert client().get_run(run).data.metrics["validation/fused/ndcg_at_10"] == 0.5
    text = client().get_model_version(NAME, "1").description
    assert f"[run {run}]" in text and "| test | fused (served) | 0.5000 | 0.5000 |" in text
    assert [each.title for each in models.versions()] == ["prorec-demo/1"]


def test_what_trained_on_the_validation_items_says_so_and_is_refused(tmp_path: Path) -> None:
    run, uri = make_version(tmp_path / "1", GOOD, memory=True)
    version = models.named(uri)
    assert version.tags[models.VALIDATION_TAG] == "true"
    assert not any(name.startswith("validation") for name in (*version.tags, *client().get_run(run).data.metrics))
    text = client().get_model_version(NAME, "1").description
    assert "Trained on the validation items too" in text and "| validation |" not in text
    promotion.promote(promotion.judge(uri), anyway=False)
    _, other = make_version(tmp_path / "2", GOOD)
    with pytest.raises(UserError, match="trained_on_validation is False for the challenger, True for the champion"):
        promotion.promote(promotion.judge(other), anyway=False)


def test_a_version_that_was_deleted_is_registered_again(tmp_path: Path) -> None:
    _, uri = make_version(tmp_path / "1", GOOD)
    generator = models.named(uri).artifact("train_generator")
    assert generator is not None and models.version_of(generator) == uri
    client().delete_model_version(NAME, "1")
    assert models.version_of(generator) == "models:/prorec-demo/2" == models.version_of(generator)


def test_a_number_of_today_may_be_another_generators(tmp_path: Path) -> None:
    """Numbers begin anew where somebody deletes a whole registered model."""
    uris = [make_version(tmp_path / name, ranks)[1] for name, ranks in (("1", GOOD), ("2", MIXED))]
    generators = [models.named(uri).artifact("train_generator") for uri in uris]
    ids = [models.named(uri).model_id for uri in uris]
    client().delete_registered_model(NAME)
    for generator, model_id in reversed(list(zip(generators, ids, strict=True))):
        assert generator is not None
        uri = models.version_of(generator)
        assert uri is not None and models.named(uri).model_id == model_id


def test_what_an_earlier_promotion_left_goes(tmp_path: Path) -> None:
    _, first = make_version(tmp_path / "1", MIXED)
    _, second = make_version(tmp_path / "2", GOOD)
    promote(first)
    promote(second)
    assert "prorec.promoted.ndcg_at_10" in models.named(second).tags
    promote(first, anyway=True)
    client().delete_registered_model_alias(NAME, "champion")
    promote(second)
    tags = {name for name in models.named(second).tags if name.startswith("prorec.promoted.")}
    assert tags == {"prorec.promoted.at", "prorec.promoted.over", "prorec.promoted.anyway"}


def test_there_is_no_model_of_an_odd_name() -> None:
    assert models.versions("it's") == []


def test_a_model_measured_before_there_was_a_ranker_is_served_as_it_was() -> None:
    assert models.served_scorer({"fusion_weight": None}) == "generative"
    assert models.served_scorer({"fusion_weight": 2.0}) == "fused"
    assert models.served_scorer({"fusion_weight": 2.0, "recommended": "ranked"}) == "ranked"
