"""Which version a training goes on from: resolved once, told apart by its content, held against the data."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from prorec.tasks.execution.runner import _data_sets
from prorec.tasks.execution.stage import Work
from prorec.tasks.local import paths
from prorec.tasks.registry import models
from prorec.tasks.stages.preprocess import preprocess, source_digest
from prorec.tasks.stages.start import READ, base_of, pinned, start_digest
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import FLOW_RUN_TAG, TrackedRun, client
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.seen import Seen
from prorec_core.data.sequences import Split
from prorec_core.errors import UserError
from prorec_core.progress import silent
from tests.data_sets import data_set
from tests.tasks.registry.test_promotion import NAME, make_version

CHAMPION = f"models:/{NAME}@champion"


@pytest.fixture(autouse=True)
def tracked_here(tracked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow sets this variable when a version is registered.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths.tracking_uri())


def shop(length: int) -> Dataset:
    return data_set([(np.arange(length) + user).astype(np.int32) % 10 for user in range(20)], 10)


def returned(gone: dict[int, int]) -> Dataset:
    """Twenty users of eight items, so many of the last cancelled."""
    whole = shop(8).sequences
    return data_set([whole.of_user(user)[: 8 - gone.get(user, 0)] for user in range(20)], 10)


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
    assert base.seen_of(shop(9), validation=True) == {}
    with pytest.raises(UserError, match=r"demo/1 was trained on 20 of the 20 validation items, as 'i.* of 'u"):
        base.seen_of(shop(7), validation=True)
    with pytest.raises(UserError, match=r"prorec-demo/1 was trained or validated on 20 of the 20 test"):
        base.seen_of(shop(6), validation=False)
    # What it was validated on counts too: its ranker was fitted to that.
    with pytest.raises(UserError, match=r"prorec-demo/1 was trained or validated on 20 of the 20 test"):
        base.seen_of(shop(7), validation=False)
    # Also what was gone on from before counts.
    after = base_of(experiment(later))
    assert after is not None
    client().set_model_version_tag(NAME, "1", models.VALIDATION_TAG, "true")
    with pytest.raises(UserError, match="models:/prorec-demo/2: prorec-demo/1 was trained on 20 of the 20 val"):
        after.seen_of(shop(8), validation=True)


def test_a_start_that_knows_nobody_of_the_shop_is_refused_and_one_that_knows_few_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = make_version(tmp_path / "1", [1] * 20, data=shop(8))
    base, now, told = base_of(experiment(before)), shop(9), list[str]()
    assert base is not None
    # By moments of their own no history would be known again.
    now = replace(now, timestamps=shop(8).timestamps[0] + np.tile(np.arange(9), 20) + np.repeat(np.arange(20) * 8, 9))
    renamed = replace(now, users=now.users.with_columns(user_id="c-" + now.users["user_id"]))
    with pytest.raises(UserError, match=f"^start_from {before}: the users of prorec-demo/1 have other ids here"):
        base.seen_of(renamed, validation=True)
    monkeypatch.setattr("prorec.tasks.stages.start.emit", lambda notice: told.append(notice.text))
    others = replace(renamed, timestamps=now.timestamps + 10**6)
    assert base.seen_of(others, validation=True) == {}
    assert [text.partition(" of the ")[0] for text in told] == ["start_from: 0"]


def test_a_few_that_a_line_of_versions_saw_are_left_out(tmp_path: Path) -> None:
    _, before = make_version(tmp_path / "1", [1] * 20, data=returned({}))
    _, later = make_version(tmp_path / "2", [1] * 20, data=returned({4: 1}), start_from=before)
    base = base_of(experiment(later))
    assert base is not None
    # The fifth user's was cancelled before the second version, the eighth's after it.
    now = returned({4: 1, 7: 1})
    found = base.seen_of(now, validation=True)
    assert {split: np.flatnonzero(each.targets).tolist() for split, each in found.items()} == {
        Split.VALIDATION: [4, 7],
        Split.TEST: [4, 7],
    }
    assert found[Split.VALIDATION].told == (
        "prorec-demo/2, or a version before it, was trained on 2 of the 20 validation items, as 'i9' of 'u4'"
    )
    assert list(base.seen_of(now, validation=False)) == [Split.TEST]
    with pytest.raises(UserError, match="on 6 of the 20 validation items"):
        base.seen_of(returned(dict.fromkeys(range(6), 1)), validation=True)


def test_preprocess_leaves_them_out_and_is_kept_by_what_was_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Saw:
        def seen_of(self, dataset: Dataset, *, validation: bool) -> dict[Split, Seen]:
            asked.append(validation)
            targets = np.arange(len(dataset.sequences.targets(Split.TEST))) == 3
            return {Split.TEST: Seen(targets, "x/1 was trained on 1 of them")}

    stage = importlib.import_module("prorec.tasks.stages.preprocess")
    monkeypatch.setattr(stage, "base_of", lambda experiment: Saw() if experiment.start_from else None)
    monkeypatch.setattr(stage, "start_digest", lambda experiment: experiment.start_from or "")
    data = {"demo": {"users": 60, "items": 40}}
    anew, on = experiment(None, data=data), experiment("models:/x/1", data=data)
    memory = on.model_copy(update={"train_on_validation": True})
    for place, each in (("anew", anew), ("on", on), ("memory", memory)):
        folder = tmp_path / place
        folder.mkdir()
        part = preprocess.part(each)
        preprocess.body(Work(part, {}, {}, folder, tmp_path, silent, cast("TrackedRun", None)))
    assert asked == [True, False]
    whole, left = (Dataset.load(tmp_path / place).sequences for place in ("anew", "on"))
    assert len(left.targets(Split.TEST)) == len(whole.targets(Split.TEST)) - 1 == 59
    told = json.loads((tmp_path / "on" / "profile.json").read_text())
    assert told["warnings"][-1].endswith("measured: x/1 was trained on 1 of them")
    others = (anew, on, memory, on.model_copy(update={"start_from": "models:/x/2"}))
    assert len({preprocess.key(each, {}) for each in others}) == 4
    source = source_digest(anew.data)
    assert {preprocess.found_outside(each).split()[0] for each in others} == {source}
    (noted,) = _data_sets(on, {}, {}, preprocess.found_outside(on))
    assert noted.digest == source, "the data are the same, whoever was started from"


def test_new_items_that_are_held_out_cannot_be_told_from_known_ones() -> None:
    with pytest.raises(ValueError, match=r"start_from with data\.new_items"):
        experiment(CHAMPION, data={"new_items": 0.1})
