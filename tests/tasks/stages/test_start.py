"""Which version a training goes on from: resolved once, told apart by its content, held against the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorec.tasks.local import paths
from prorec.tasks.registry import models
from prorec.tasks.stages.start import READ, base_of, pinned, start_digest
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import FLOW_RUN_TAG, TrackedRun, client
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.errors import UserError
from tests.data_sets import data_set
from tests.tasks.registry.test_promotion import NAME, make_version

CHAMPION = f"models:/{NAME}@champion"


@pytest.fixture(autouse=True)
def tracked_here(tracked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow sets this variable when a version is registered.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())


def shop(length: int) -> Dataset:
    return data_set([(np.arange(length) + user).astype(np.int32) % 10 for user in range(20)], 10)


def experiment(start: str | None, **changes: Any) -> Experiment:
    return Experiment.model_validate({"start_from": start, **changes})


def test_an_alias_is_resolved_once_and_its_content_is_in_the_key(tmp_path: Path) -> None:
    run, first = make_version(tmp_path / "1", [1] * 20, data=shop(5))
    _, second = make_version(tmp_path / "2", [0] * 20, data=shop(6))
    client().set_registered_model_alias(NAME, "champion", "1")
    assert pinned(experiment(None), {}).start_from is None
    assert pinned(experiment(CHAMPION), {}).start_from == pinned(experiment(run), {}).start_from == first
    tags = {FLOW_RUN_TAG: "11111111-1111-1111-1111-111111111111"}
    tried = TrackedRun.start(mlflow_runs.experiment_id("demo"), "first try", tags=tags)
    tried.parameters(pinned(experiment(CHAMPION), tags).model_dump(mode="json"))
    client().set_registered_model_alias(NAME, "champion", "2")
    assert pinned(experiment(CHAMPION), tags).start_from == first, "the second try of a flow run starts from the same"
    assert pinned(experiment(CHAMPION), {}).start_from == second

    assert start_digest(experiment(None)) == ""
    with pytest.raises(UserError, match=r"start_from models:/.*/1: the artifact of 'embed_text' .* is not known"):
        start_digest(experiment(first))
    for number in ("1", "2"):
        for stage in READ:
            client().set_model_version_tag(NAME, number, models.digest_tag(stage), stage)
    assert start_digest(experiment(second)) != start_digest(experiment(first)), "its files are others"
    for number, content in (("1", "a"), ("2", "b")):
        client().set_model_version_tag(NAME, number, models.CONTENT_TAG, content)
    assert start_digest(experiment(CHAMPION)) == start_digest(experiment(second)) != start_digest(experiment(first))
    with pytest.raises(UserError, match="there is no such version of a model"):
        pinned(experiment("models:/nothing/7"), {})


def test_a_start_that_saw_what_is_measured_now_is_refused(tmp_path: Path) -> None:
    _, before = make_version(tmp_path / "1", [1] * 20, data=shop(8))
    _, later = make_version(tmp_path / "2", [1] * 20, data=shop(8), start_from=before)
    base = base_of(experiment(before))
    assert base is not None
    base.expect_unseen(shop(9), validation=True)
    with pytest.raises(UserError, match=r"demo/1 was trained on 20 of the 20 test items, as 'i.* of 'u"):
        base.expect_unseen(shop(6), validation=True)
    with pytest.raises(UserError, match=r"prorec-demo/1 was trained on 20 of the 20 validation"):
        base.expect_unseen(shop(7), validation=True)
    # Also what was gone on from before counts.
    after = base_of(experiment(later))
    assert after is not None
    client().set_model_version_tag(NAME, "1", models.VALIDATION_TAG, "true")
    with pytest.raises(UserError, match="models:/prorec-demo/2: prorec-demo/1 was trained on 20 of the 20 val"):
        after.expect_unseen(shop(8), validation=True)


def test_new_items_that_are_held_out_cannot_be_told_from_known_ones() -> None:
    with pytest.raises(ValueError, match=r"start_from with data\.new_items"):
        experiment(CHAMPION, data={"new_items": 0.1})
