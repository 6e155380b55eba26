"""An evaluation by time whose right figures are known: several targets a user, and targets that nobody can find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prorec_core.config_data import DataConfig
from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Split
from prorec_core.data.stage import preprocess
from prorec_core.evaluation.comparable import data_differences, moment_differences, protocol_differences
from prorec_core.evaluation.measured import NEW_ITEMS, Evaluation
from prorec_core.evaluation.new_items import NewItemLists, new_item_histories
from prorec_core.evaluation.remarks import remarks_on_data
from prorec_core.evaluation.stage import EvaluationInputs, evaluate
from prorec_core.evaluation.variants import Measured, compare_variants
from prorec_core.metrics.intervals import compare_runs
from prorec_core.metrics.top import TopItems
from prorec_core.reports.background import Background
from prorec_core.reports.evaluation import render
from prorec_core.reports.tables import protocol_line, result_markdown
from tests.html_page import Page

LENGTH = 10
PARTS = {Split.VALIDATION: "validation", Split.TEST: "test"}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return preprocess(DataConfig(split="by_time", demo={"users": 300, "items": 90}, min_item_interactions=8))


def lists(targets: np.ndarray, n_items: int, found: np.ndarray) -> TopItems:
    """Lists that hold the target first where it is to be found, and not at all elsewhere."""
    items = np.stack([np.setdiff1d(np.arange(n_items), [target])[:LENGTH] for target in targets]).astype(np.int32)
    items[found, 0] = targets[found]
    return TopItems(items, np.tile(-np.arange(LENGTH, dtype=np.float32), (len(items), 1)))


def inputs_of(dataset: Dataset, seed: int = 0) -> EvaluationInputs:
    """Lists that find half of what can be found, and of new items those of even number."""
    random, size = np.random.default_rng(seed), dataset.items.height
    made = {}
    for part in PARTS:
        targets = dataset.sequences.targets(part)
        made[part] = {"generative": lists(targets, size, (targets < size) & (random.random(len(targets)) < 0.5))}
    targets = dataset.sequences.targets(Split.TEST)
    known, new = targets[targets < size], targets[targets >= size]
    grown = NewItemLists(
        {"generative": lists(known, dataset.n_items_with_new, np.ones(len(known), bool))},
        {"generative": lists(new, dataset.n_items_with_new, new % 2 == 0)},
    )
    config = EvaluateConfig(list_length=LENGTH, bootstrap_samples=200, examples=3)
    return EvaluationInputs(config, dataset, made, recommended="generative", new=grown)


@pytest.fixture(scope="module")
def evaluation(dataset: Dataset) -> Evaluation:
    return evaluate(inputs_of(dataset))


def test_the_shop_has_what_is_to_be_measured(dataset: Dataset) -> None:
    assert dataset.new_items is not None
    about = dataset.split["test"]
    assert min(about["targets_of_new_items"], about["new_users"], about["targets"] - about["users"]) > 5


def test_a_figure_is_the_mean_over_users_of_the_mean_over_their_targets(
    dataset: Dataset, evaluation: Evaluation
) -> None:
    sequences = dataset.sequences
    for part, name in PARTS.items():
        targets, owners = sequences.targets(part), sequences.owners_of(part)
        rows = evaluation.ranks.filter(np.array(evaluation.ranks["split"]) == name)
        assert rows["user"].to_pylist() == owners.tolist()
        assert rows["target"].to_pylist() == targets.tolist()
        hits = rows["rank_generative"].to_numpy() == 1
        assert not hits[targets >= dataset.items.height].any(), "what the catalogue lacks is missed, and not left out"
        by_user = [hits[owners == user].mean() for user in np.unique(owners)]
        found = evaluation.metrics[name]["generative"]
        assert found["recall_at_1"] == pytest.approx(np.mean(by_user), abs=1e-6)
        error = np.std(by_user, ddof=1) / np.sqrt(len(by_user))
        assert evaluation.metrics[name]["generative"]["recall_at_10_standard_error"] == pytest.approx(error, abs=1e-6)
        protocol = evaluation.metrics["protocol"]
        assert (protocol[f"{name}_users"], protocol[f"{name}_targets"]) == (len(by_user), len(targets))


def test_groups_of_targets_make_up_all(dataset: Dataset, evaluation: Evaluation) -> None:
    slices, about = evaluation.metrics["slices"], dataset.split["test"]
    assert list(slices) == ["target_popularity", "history_length", "user"]
    for groups in slices.values():
        assert sum(group["targets"] for group in groups) == about["targets"]
    outside = {group["group"]: group for group in slices["target_popularity"]}["not in training"]
    assert (outside["targets"], outside["recall"]["generative"]) == (about["targets_of_new_items"], 0.0)
    new = slices["user"][1]
    assert (new["group"], new["users"], new["targets"]) == (
        "new users",
        about["new_users"],
        about["targets_of_new_users"],
    )


def test_without_history_popular_items_are_recommended(dataset: Dataset, evaluation: Evaluation) -> None:
    empty = np.flatnonzero(np.diff(dataset.sequences.histories(Split.TEST).offsets) == 0)
    before = np.flatnonzero(np.diff(dataset.sequences.histories(Split.VALIDATION).offsets) == 0)
    assert len(empty) == dataset.split["test"]["without_history"]
    assert len(before) == dataset.split["validation"]["without_history"] > 0
    popular = np.argsort(-dataset.sequences.train_counts(), kind="stable")[:LENGTH]
    for row in empty:
        assert evaluation.lists["generative"].items_UK[row].tolist() == popular.tolist()


def test_new_items_are_measured_apart_and_with_the_others(dataset: Dataset, evaluation: Evaluation) -> None:
    found = evaluation.metrics["new_items"]
    targets, owners = dataset.sequences.targets(Split.TEST), dataset.sequences.owners_of(Split.TEST)
    new, hit = targets >= dataset.items.height, (targets < dataset.items.height) | (targets % 2 == 0)
    for group, members in (("new", new), ("known", ~new), ("all", np.ones(len(new), bool))):
        by_user = [hit[members & (owners == user)].mean() for user in np.unique(owners[members])]
        assert found[group]["generative"]["recall_at_10"] == pytest.approx(np.mean(by_user), abs=0.02), group
    assert found["interactions"] == new.sum()
    assert evaluation.owners(NEW_ITEMS).tolist() == owners[new].tolist()
    for histories, members in zip(new_item_histories(dataset), (~new, new), strict=True):
        assert histories.owners.tolist() == owners[members].tolist()
        assert histories.n_items == dataset.n_items_with_new


def test_two_runs_are_compared_by_users(dataset: Dataset, evaluation: Evaluation) -> None:
    other = evaluate(inputs_of(dataset, seed=1))
    scorers = ("generative", "generative")
    found = compare_runs(evaluation.ranks, other.ranks, scorers)["recall_at_10"]
    own, theirs = (each.metrics["test"]["generative"]["recall_at_10"] for each in (evaluation, other))
    assert found["difference"] == pytest.approx(own - theirs, abs=1e-6)
    assert found["low"] < found["difference"] < found["high"]
    turned = evaluation.ranks.take(np.argsort(-evaluation.ranks["user"].to_numpy(), kind="stable"))
    assert compare_runs(turned, other.ranks, scorers)["recall_at_10"] == found, "rows of one user stay in order"
    measured = [
        Measured(
            *(name, 0, "generator", each.metrics, each.test_ranks, {}, 0),
            new_item_ranks=each.new_item_ranks,
            owners=each.owners("test"),
            new_item_owners=each.owners(NEW_ITEMS),
        )
        for name, each in (("one", evaluation), ("two", other))
    ]
    table = compare_variants(measured, "two", dataset.sequences)
    assert table["variants"]["one"]["against"]["recall_at_10"]["difference"] == found["difference"]
    assert table["slices"]["user"][0]["recall"].keys() == {"one", "two"}
    assert table["new_items"]["by_time"] is True


def test_what_moves_the_test_makes_runs_incomparable(dataset: Dataset, evaluation: Evaluation) -> None:
    config = DataConfig(split="by_time", demo={"users": 300, "items": 90}, min_item_interactions=8, test_share=0.15)
    moved = preprocess(config)
    names = ("this", "that")
    (told,) = data_differences(replace(moved, items=dataset.items, users=dataset.users), dataset, names) or [""]
    assert "another test item" in told
    assert data_differences(dataset, dataset, names) == []
    other = evaluate(replace(inputs_of(moved), new=None)).metrics["protocol"]
    assert protocol_differences(evaluation.metrics["protocol"], other, names) == [], "it is the same rule"
    found = moment_differences(evaluation.metrics["protocol"], other, names)
    assert [each.partition(" ")[0] for each in found] == ["validation_from", "test_from"]


def test_page_and_table_say_how_targets_were_held_back(dataset: Dataset, evaluation: Evaluation) -> None:
    page = render(Background(EvaluateConfig(examples=3), dataset), evaluation)
    assert not Page(page).open
    for text in (page, result_markdown(evaluation.metrics)):
        assert "by time: every interaction from" in text
        assert "figures are means over users of their own means" in text
        assert "items that training never saw" in text
    assert "nothing that anybody did once the validation had begun was trained on" in page
    assert "by whether training saw the user" in page
    every, asked = (
        len(each)
        for each in (dataset.sequences.targets(Split.VALIDATION), dataset.sequences.answerable(Split.VALIDATION))
    )
    assert asked < every and f"was chosen on the {asked:,} of the {every:,} targets" in page
    assert "Over the lists of all targets, however many a user has." in page
    first = {**evaluation.metrics["protocol"], "targets": "first", "split": "by position"}
    assert protocol_line(first).startswith(
        "by position, for want of a clock: each user's first interaction in the last share"
    )


def test_what_can_be_reached_is_not_told_where_new_items_are_asked_for_too(dataset: Dataset) -> None:
    split = dataset.profile["split"]
    assert split["test"]["targets_of_new_items"] > 0
    taken = {"targets_in_history": {"test": 9, "validation": 2}}
    (told,) = remarks_on_data({**dataset.profile, **taken, "warnings": []}, mask_history=True)
    assert f"(9 of {split['test']['targets']})" in told and "can be reached" not in told
    test = {**split["test"], "targets_of_new_items": 0}
    known = {**dataset.profile, **taken, "warnings": [], "split": {**split, "test": test}}
    assert "of the test targets can be reached" in remarks_on_data(known, mask_history=True)[0]
