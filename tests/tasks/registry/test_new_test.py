"""A champion from before is measured on the challenger's test, as it serves, before the two are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prorec.tasks.local import paths
from prorec.tasks.registry import models, promotion, recommenders
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec_core.artifacts import sha256_file, write_manifest
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Borders, Split
from prorec_core.errors import UserError
from prorec_core.evaluation.served import served_ranks
from prorec_core.metrics.measures import recall_at_k
from prorec_core.metrics.measuring import rank_metrics
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
    with pytest.raises(UserError, match=r"\(prorec-demo/1 was trained or validated on \d+ of the 40 test items, as '"):
        promotion.promote(promotion.judge(second), anyway=False)


def test_nor_one_that_went_on_from_such_a_one(tmp_path: Path) -> None:
    _, ancestor = make_version(tmp_path / "1", [1] * 40, data=shop(4))
    _, champion = make_version(tmp_path / "2", [1, 0] * 20, data=shop(0), start_from=ancestor)
    assert models.named(champion).tags[models.STARTED_FROM_TAG] == ancestor
    assert models.STARTED_FROM_TAG not in models.named(ancestor).tags
    serve(tmp_path, champion)
    promotion.promote(promotion.judge(champion), anyway=False)
    _, challenger = make_version(tmp_path / "3", [1] * 40, data=shop(1))
    with pytest.raises(UserError, match=r"\(prorec-demo/1 was trained or validated on \d+ of the 40 test items"):
        promotion.promote(promotion.judge(challenger), anyway=False)
    # What is gone cannot be asked, and that is told.
    client().delete_model_version(NAME, "1")
    told: list[str] = []
    assert not promotion.judge(challenger, told.append).objection
    assert "models:/prorec-demo/1, which prorec-demo/2 went on from, is not there any more" in told[0]


def test_a_few_targets_that_it_was_trained_on_are_left_out_of_the_comparison(tmp_path: Path) -> None:
    _, first = make_version(tmp_path / "1", [1, 0] * 20, data=shop(0))
    serve(tmp_path, first)
    promotion.promote(promotion.judge(first), anyway=False)
    # Since then two users cancelled their last order: their test items validated the champion.
    walks = [shop(0).sequences.of_user(user) for user in range(40)]
    now = data_set([walk[:-1] if user in {3, 9} else walk for user, walk in enumerate(walks)], 24, item_ids=IDS[:24])
    own = [1] * 40
    own[3] = own[9] = 0
    _, second = make_version(tmp_path / "2", own, data=now)
    told: list[str] = []
    judged = promotion.judge(second, told.append)
    assert told[0].startswith("Left out of the comparison: prorec-demo/1 was trained or validated on 2 of the 40 test")
    assert told[1].endswith("on the test of prorec-demo/2: 38 users.") and len(told) == 2
    ranks = np.delete(served_ranks(recommenders.load(recommenders.find(first)), now, 50, masked=True), [3, 9])
    assert judged.champion is not None and not judged.objection
    assert judged.champion.test["recall_at_10"] == recall_at_k(ranks, 10)
    assert (
        judged.challenger.test["recall_at_10"] == 1 and judged.challenger.metrics["test"]["fused"]["recall_at_10"] < 1
    )
    assert judged.differences["recall_at_10"]["difference"] == pytest.approx(1 - recall_at_k(ranks, 10), abs=1e-6)
    assert judged.challenger.test_users == judged.champion.test_users == 38


def by_time(validation_from: int, test_from: int) -> Dataset:
    """Forty users with eight items each, split where so many of them are over."""
    whole = shop(3)
    borders = Borders(*(np.full(40, each, np.int64) for each in (validation_from, test_from)))
    split = {"kind": "by_time", "unit": "second", "targets": "all", "least": 1}
    return replace(whole, sequences=replace(whole.sequences, borders=borders), profile={"split": split})


def test_by_time_one_of_an_earlier_stretch_is_measured_on_the_later(tmp_path: Path) -> None:
    early, late = {"validation_from": 3, "test_from": 4}, {"validation_from": 5, "test_from": 6}
    _, first = make_version(tmp_path / "1", [1, 0] * 80, data=by_time(**early), **early)
    serve(tmp_path, first)
    promotion.promote(promotion.judge(first), anyway=False)
    now = by_time(**late)
    _, second = make_version(tmp_path / "2", [1] * 80, data=now, **late)
    judged = promotion.judge(second)
    ranks = served_ranks(recommenders.load(recommenders.find(first)), now, 50, masked=True)
    assert judged.champion is not None and not judged.objection
    owners = now.sequences.owners_of(Split.TEST)
    assert judged.champion.test["recall_at_10"] == rank_metrics(ranks, 50, owners)["recall_at_10"]
    promotion.promote(judged, anyway=False)
    # The other way round it was trained on what is measured.
    _, third = make_version(tmp_path / "3", [1] * 160, data=by_time(**early), **early)
    with pytest.raises(UserError, match=r"\(prorec-demo/2 was trained or validated on 80 of the 160 test items"):
        promotion.promote(promotion.judge(third), anyway=False)
