"""A baseline's lists beside what a ranker makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.dataset import Dataset, NewItems
from prorec_core.data.sequences import IntArray, Sequences, Split, from_lists
from prorec_core.evaluation.reranking import Found, as_candidates, find_all, own_and_ranked, sequential_find
from prorec_core.evaluation.stage import EvaluationInputs, evaluate
from prorec_core.generation.candidates import Candidates
from prorec_core.generation.ranker import FOLDS
from prorec_core.generation.relations import Relations
from prorec_core.metrics.top import TopItems
from prorec_core.progress import Progress
from prorec_core.sequential.trained import Floats
from tests.toys import LastItem

USERS, ITEMS = 300, 40


def ring(trained_on: bool = False) -> Dataset:
    """Every user goes round a ring of items from somewhere: what comes next is known from counts alone."""
    random = np.random.default_rng(5)
    lists = [((random.integers(0, ITEMS) + np.arange(6)) % ITEMS).astype(np.int32) for _ in range(USERS)]
    frame = pl.DataFrame({"item_id": [f"i{item}" for item in range(ITEMS)]})
    users = pl.DataFrame({"user_id": [f"u{user}" for user in range(USERS)]})
    sequences = from_lists(lists, ITEMS)
    sequences = sequences.with_validation_in_training() if trained_on else sequences
    return Dataset(frame, users, sequences, np.zeros(len(sequences.items), np.int64), {})


def noise(dataset: Dataset, length: int) -> dict[Split, Candidates]:
    """Lists that hold every item the user lacks in an order that tells nothing."""
    random = np.random.default_rng(7)
    found = {}
    for split in (Split.VALIDATION, Split.TEST):
        histories = dataset.sequences.histories(split)
        items = np.full((USERS, length), -1, np.int32)
        for user in range(USERS):
            mine = histories.items[histories.offsets[user] : histories.offsets[user + 1]]
            open_items = random.permutation(np.setdiff1d(np.arange(ITEMS), mine))[:length]
            items[user, : len(open_items)] = open_items
        scores = np.where(items >= 0, -np.sort(random.random(items.shape), axis=1), -np.inf).astype(np.float32)
        found[split] = as_candidates(TopItems(items, scores))
    return found


def measured(dataset: Dataset, texts: np.ndarray | None = None, **settings: int) -> EvaluationInputs:
    config = EvaluateConfig.model_validate(settings)
    return own_and_ranked("mine", Found(noise(dataset, ITEMS)), dataset, config, 3, texts)


def test_what_counts_know_is_found_in_lists_that_know_nothing() -> None:
    dataset = ring()
    found = measured(dataset, list_length=20)
    for split, lists in found.lists.items():
        assert list(lists) == ["mine", "ranked"]
        assert all(each.items_UK.shape == (USERS, 20) for each in lists.values())
        targets = dataset.sequences.targets(split)
        first = {name: float((each.items_UK[:, 0] == targets).mean()) for name, each in lists.items()}
        assert first["mine"] < 0.2 and first["ranked"] > 0.95
    assert found.ranker is not None
    assert found.ranker["features"] == list(found.ranker["without"]), "what has no weight is not told"
    assert "successor" in found.ranker["features"] and not {"generative", "text"} & set(found.ranker["features"])
    assert found.ranker["ndcg_at_10"] > 0.95 and found.recommended == "ranked"
    assert len(found.ranker["weights"]) == len(found.ranker["standardised"]) == len(found.ranker["features"])
    assert found.ranker["numbers"] > ITEMS


def test_the_own_lists_are_the_baselines_best() -> None:
    dataset = ring()
    candidates, found = noise(dataset, ITEMS), measured(dataset)
    for split, lists in found.lists.items():
        assert np.array_equal(lists["mine"].items_UK, candidates[split].items_UC)


def test_texts_count_where_there_are_any() -> None:
    texts = np.random.default_rng(1).normal(size=(ITEMS, 8)).astype(np.float32)
    told = measured(ring(), texts).ranker
    assert told is not None and "text" in told["features"]
    ids_alone = measured(ring()).ranker
    assert ids_alone is not None and told["numbers"] == ids_alone["numbers"] + texts.size, "no texts, no numbers"


def test_what_is_best_already_is_left_as_it_is() -> None:
    """A ranker that only repeats the order that is there is no better than that."""
    dataset = ring()
    found = {}
    for split, candidates in noise(dataset, ITEMS).items():
        hits = candidates.items_UC == dataset.sequences.targets(split)[:, None]
        found[split] = replace(candidates, dense_UC=np.where(hits, 0.0, -90.0).astype(np.float32))
    both = own_and_ranked("mine", Found(found), dataset, EvaluateConfig(), 0)
    assert both.recommended == "mine"


def test_scores_of_a_list_become_log_probabilities() -> None:
    items = np.array([[3, 1, -1], [-1, -1, -1]], np.int32)
    scores = np.array([[5.0, 4.0, -np.inf], [-np.inf] * 3], np.float32)
    found = as_candidates(TopItems(items, scores))
    assert np.exp(found.dense_UC).sum(1) == pytest.approx([1, 0])
    assert found.dense_UC[0, 0] - found.dense_UC[0, 1] == pytest.approx(1)
    assert np.isneginf(found.generative_UC).all() and np.isneginf(found.dense_UC[1]).all()


def test_nothing_is_fitted_where_the_validation_items_are_trained_on() -> None:
    found = measured(ring(trained_on=True))
    assert found.ranker is None and all(list(lists) == ["mine"] for lists in found.lists.values())
    assert found.recommended == "mine"


def test_validation_lists_may_be_made_by_what_others_chose() -> None:
    dataset, asked = ring(), list[Sequences]()
    found = noise(dataset, ITEMS)

    def held_out(candidates: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        asked.append(histories)
        items_UK, scores_UK = candidates.dense(k)
        return items_UK[:, ::-1], scores_UK[:, ::-1]

    plain = own_and_ranked("mine", Found(found), dataset, EvaluateConfig(), 0)
    other = own_and_ranked("mine", Found(found), dataset, EvaluateConfig(), 0, own_held_out=held_out)
    validation, test = (tuple(each.lists[split]["mine"].items_UK for each in (plain, other)) for split in found)
    assert np.array_equal(validation[0], validation[1][:, ::-1]) and np.array_equal(*test)
    assert len(asked) == 1 and asked[0].n_users == dataset.sequences.n_users


@pytest.mark.parametrize(("length", "asked"), [(50, 100), (200, 250), (10, 100), (300, 300)])
def test_a_sequential_model_gives_as_many_candidates_as_a_generator(length: int, asked: int) -> None:
    """As many as there are, where there are fewer."""
    histories = from_lists([np.arange(4, dtype=np.int32), np.array([7], np.int32)], 300)
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32))
    config = EvaluateConfig(list_length=length)
    found = sequential_find(LastItem(), table, 2, config)(histories)
    assert found.items_UC.shape == (2, asked)
    for user, (mine, latest) in enumerate([(range(4), 3), ([7], 7)]):
        order = [item for item in (-(table @ table[latest])).argsort().tolist() if item not in mine][:asked]
        assert found.items_UC[user].tolist() == [*order, *[-1] * (asked - len(order))]
    offsets = torch.zeros(300)
    offsets[299] = 1000
    assert (sequential_find(LastItem(), table, 2, config, offsets)(histories).items_UC[:, 0] == 299).all()


@pytest.mark.parametrize("masked", [True, False])
def test_a_sequential_model_gives_what_the_ranker_finds_too(monkeypatch: pytest.MonkeyPatch, masked: bool) -> None:
    for module in ("evaluation.lists", "generation.similar"):
        monkeypatch.setattr(f"prorec_core.{module}.BESIDE_CANDIDATES", 2)
    random = np.random.default_rng(1)
    histories = from_lists([np.arange(4, dtype=np.int32), np.array([7], np.int32), np.array([], np.int32)], 300)
    table = torch.from_numpy(random.normal(size=(300, 6)).astype(np.float32))
    near = from_lists([np.array([0, *range(100, 140)], np.int32), np.array([7, 250], np.int32)], 300)
    relations = Relations.of(near, np.ones((302, 1), np.float32))
    config = EvaluateConfig(list_length=10, beams=10, mask_history=masked)
    plain = sequential_find(LastItem(), table, 2, config)(histories)
    found = sequential_find(LastItem(), table, 2, config, relations=relations)(histories)
    assert np.array_equal(found.dense(10)[0], plain.dense(10)[0]), "what it recommends by itself stays"
    for user in range(3):
        known = {*plain.items_UC[user].tolist(), *(histories.of_user(user).tolist() if masked else ())}
        strength_N = relations.near(histories)[[user]].toarray()[0]
        asked = [item for item in np.argsort(-strength_N, kind="stable").tolist() if strength_N[item] > 0]
        wanted = [item for item in asked if 0 <= item < 300 and item not in known][:2]
        assert set(found.items_UC[user].tolist()) - {-1} == {*plain.items_UC[user].tolist(), *wanted} - {-1}
        assert len(wanted) == (2, 1, 0)[user]


def test_a_baseline_is_asked_over_the_larger_catalogue_where_there_are_new_items() -> None:
    def find(asked: Sequences) -> Candidates:
        items = np.full((asked.n_users, 1), asked.n_items - 1, np.int32)
        return Candidates(items, np.zeros(items.shape, np.float32), np.zeros(items.shape, np.float32), 1)

    dataset = ring()
    found = find_all(dataset, find, lambda: pytest.fail("there are no new items"))
    assert found.new is None and {split: len(each.items_UC) for split, each in found.known.items()} == {
        Split.VALIDATION: USERS,
        Split.TEST: USERS,
    }
    items = pl.DataFrame({"item_id": ["new"], "title": [""], "text": ["new"]})
    grown = replace(dataset, new_items=NewItems(items, np.array([5, 9], np.int32), np.zeros(2, np.int32)))
    assert find_all(grown, find).new is None, "it knows ids alone"
    new = find_all(grown, find, lambda: find).new
    assert new is not None and [each.items_UC.tolist() for each in new] == [[[ITEMS]] * USERS, [[ITEMS]] * 2]


def test_nothing_is_fitted_where_no_target_is_a_candidate() -> None:
    """Weights of 0 would rank by the items' numbers."""
    dataset = ring()
    found = {}
    for split, candidates in noise(dataset, ITEMS).items():
        missed = candidates.items_UC != dataset.sequences.targets(split)[:, None]
        found[split] = replace(candidates, items_UC=np.where(missed, candidates.items_UC, -1))
    both = own_and_ranked("mine", Found(found), dataset, EvaluateConfig(), 0)
    assert both.ranker is None and both.recommended == "mine"
    assert all(list(lists) == ["mine"] for lists in both.lists.values())


def test_own_items_are_candidates_where_they_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prorec_core.evaluation.reranking.DENSE_CANDIDATES", 1)
    config = EvaluateConfig(list_length=10, beams=10, mask_history=False)
    table = torch.nn.functional.normalize(torch.randn(300, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    histories = from_lists([np.array(items, np.int32) for items in (range(0, 100, 5), [7, 8, 7], [])], 300)
    found = sequential_find(LastItem(), table, 2, config)(histories)
    for user in range(3):
        mine, items = histories.of_user(user).tolist(), found.items_UC[user]
        order = (-(table @ table[mine[-1] if mine else 0])).argsort().tolist()
        expected = [item for place, item in enumerate(order) if place < 20 or item in mine]
        assert items[items >= 0].tolist() == expected
        assert (items[len(expected) :] == -1).all()
        assert (np.diff(found.dense_UC[user, : len(expected)]) <= 0).all()


def test_long_work_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users of each split, the ranker's networks, users whose shortcut is looked for: no pass is silent."""
    monkeypatch.setattr("prorec_core.generation.ranker.NETWORK_FROM", 10)
    dataset, config, told = ring(), EvaluateConfig(), list[Progress]()
    table = torch.nn.functional.normalize(torch.randn(ITEMS, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    found = find_all(dataset, sequential_find(LastItem(), table, 2, config, report=told.append))
    assert [each.step for each in told if each.step == each.total] == [USERS, USERS]
    assert {each.unit for each in told} == {"user"}
    told.clear()
    inputs = own_and_ranked("aligned", found, dataset, config, 0, report=told.append)
    assert {each.unit for each in told} == {"network of the ranker"} and len(told) >= FOLDS, "one more where it ranks"
    told.clear()
    evaluate(inputs, told.append)
    assert [(each.unit, each.step) for each in told if each.step == each.total or each.unit == "step"] == [
        ("step", 1),
        ("step", 2),
        ("user", USERS),
        ("step", 3),
    ]
