"""A champion from before is measured on the challenger's test, as it serves, before the two are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prorec.tasks.local import paths
from prorec.tasks.registry import promotion, recommenders
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec_core.artifacts import sha256_file, write_manifest
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Split
from prorec_core.errors import UserError
from prorec_core.evaluation.served import served_ranks
from prorec_core.metrics.measures import recall_at_k
from tests.bundles import IDS, write_bundle
from tests.data_sets import data_set
from tests.tasks.registry.test_promotion import NAME, make_version


@pytest.fixture(autouse=True)
def tracked_here(tracked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow sets this variable when a version is registered.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())


def shop(longer: int) -> Dataset:
    """Forty users with so many items more than five; the last item of all is one that no model before knew."""
    walks = [(np.arange(5 + longer) * (user % 3 + 1) + user).astype(np.int32) % 24 for user in range(40)]
    if longer:
        walks[0][-1] = 24
    return data_set(walks, 25 if longer else 24, item_ids=[*IDS, "id-new"][: 25 if longer else 24])


def serve(folder: Path, uri: str) -> None:
    """Have a version serve a real bundle."""
    write_bundle(folder / "model" / "artifacts" / "bundle")
    write_manifest(folder / "model", "train_generator", {}, {})
    name, number = uri.removeprefix("models:/").split("/")
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "served")
    version = client().get_model_version(name, number)
    place = Path(client().get_logged_model(str(version.source).removeprefix("models:/")).artifact_location)
    (folder / "model").rename(place.with_name("served"))
    place.rename(place.with_name("before"))
    place.with_name("served").rename(place)
    client().set_model_version_tag(name, number, store.MODEL_MANIFEST_TAG, sha256_file(place / "manifest.json"))
    run.finish()


def test_it_is_measured_on_the_new_test_by_what_it_serves(tmp_path: Path) -> None:
    _, first = make_version(tmp_path / "1", [1, 0] * 20, data=shop(0))
    serve(tmp_path, first)
    promotion.promote(promotion.judge(first), anyway=False)
    now = shop(1)
    _, second = make_version(tmp_path / "2", [1] * 40, data=now)
    told: list[str] = []
    judged = promotion.judge(second, told.append)
    recommender = recommenders.load(recommenders.find(first))
    ranks = served_ranks(recommender, now, 50, masked=True)
    for user in (0, 7, 39):
        history = [now.items["item_id"][int(item)] for item in now.sequences.histories(Split.TEST).of_user(user)]
        served = [each.item_id for each in recommender.recommend([history], 50)[0]]
        target = now.items["item_id"][int(now.sequences.targets(Split.TEST)[user])]
        assert ranks[user] == (served.index(target) + 1 if target in served else 0)
    assert ranks[0] == 0 and len(told) == 1
    assert judged.champion is not None and judged.champion.test["recall_at_10"] == recall_at_k(ranks, 10)
    assert judged.differences["recall_at_10"]["difference"] == pytest.approx(1 - recall_at_k(ranks, 10), abs=1e-6)
    assert not judged.objection
    promotion.promote(judged, anyway=False)
    assert promotion.models.holder(NAME, "champion") == promotion.models.named(second)


def test_one_that_was_trained_on_the_test_cannot_be_measured_by_it(tmp_path: Path) -> None:
    _, first = make_version(tmp_path / "1", [1] * 40, data=shop(4))
    serve(tmp_path, first)
    promotion.promote(promotion.judge(first), anyway=False)
    _, second = make_version(tmp_path / "2", [1] * 40, data=shop(0))
    with pytest.raises(UserError, match=r"it was trained on \d+ of the test items"):
        promotion.promote(promotion.judge(second), anyway=False)
