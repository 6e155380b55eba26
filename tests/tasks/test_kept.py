"""What earlier versions registered is found, served, compared and promoted against, and recommends what it did then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prorec.tasks.registry import models, promotion, recommenders
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec_core import versions
from prorec_core.artifacts import MANIFEST, Manifest, sha256_file
from prorec_core.metrics.table import columns

KEPT = Path(__file__).resolve().parents[1] / "kept"
VERSIONS = [str(version) for version in range(versions.VERSION + 1)]
NAME = "prorec-kept"


def register(version: str) -> str:
    """Store and register what a version left, as its run did; returns the URI."""
    experiment = mlflow_runs.experiment_id("kept")
    run = TrackedRun.start(experiment, "kept")
    stages = {}
    for stage in ("preprocess", "evaluate"):
        folder = KEPT / version / stage
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        made = TrackedRun.start(experiment, stage, parent=run.id, tags={store.STAGE_TAG: stage})
        made.upload(folder, last=MANIFEST)
        made.tags(store.tags_of(made.artifact_uri, folder, manifest))
        made.finish()
        stages[models.run_tag(stage)] = made.id
    run.finish()
    model = client().create_logged_model(experiment, name="generator", source_run_id=run.id)
    client().log_model_artifacts(model.model_id, str(KEPT / version / "model"))
    client().finalize_logged_model(model.model_id, "READY")
    tags = {store.MODEL_MANIFEST_TAG: sha256_file(KEPT / version / "model" / MANIFEST), **stages}
    return models.register(NAME, model.model_id, run.id, tags)


def told(version: str) -> list[dict[str, list[str] | list[float]]]:
    found: list[dict[str, list[str] | list[float]]] = json.loads((KEPT / version / "recommendations.json").read_text())
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_of_each_version_is_found_whole_and_recommends_what_it_did(tracked_folder: Path, version: str) -> None:
    recommender = recommenders.load(recommenders.find(register(version)))
    for then in told(version):
        (now,) = recommender.recommend([then["history"]], len(then["items"]))  # type: ignore[list-item]
        assert [each.item_id for each in now] == then["items"]
        assert [each.score for each in now] == pytest.approx(then["scores"], abs=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_mlflow_loads_it_too(tmp_path: Path, version: str) -> None:
    import mlflow
    import pandas as pd

    # MLflow notes in the folder when it was loaded.
    folder = shutil.copytree(KEPT / version / "model", tmp_path / "model")
    then = [each for each in told(version) if each["history"]]
    table = pd.DataFrame({"history": [each["history"] for each in then]})
    found = mlflow.pyfunc.load_model(str(folder)).predict(table)
    assert found["item_id"].tolist() == [item for each in then for item in each["items"]]
    assert found["score"].tolist() == pytest.approx([score for each in then for score in each["scores"]], abs=1e-5)


def test_a_model_of_each_version_is_the_champion_that_the_next_one_is_held_against(tracked_folder: Path) -> None:
    for version in VERSIONS:
        judged = promotion.judge(register(version))
        if judged.holder is None:
            assert version == "0"
        else:
            assert judged.holder.number == int(version) and not judged.obstacles and not judged.objection
            assert set(judged.differences) >= set(columns("headline"))
        promotion.promote(judged, anyway=False)
    assert recommenders.find(f"models:/{NAME}@{recommenders.CHAMPION}").version == str(len(VERSIONS))


def test_a_model_of_a_version_to_come_is_refused_by_name_version_and_cure(
    tracked_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = register(VERSIONS[-1])
    monkeypatch.setattr(versions, "VERSION", versions.VERSION - 1)
    with pytest.raises(recommenders.UserError, match=r"config\.json: a newer version of prorec .* Use that version"):
        recommenders.load(recommenders.find(uri))
