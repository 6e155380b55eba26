"""Heuristics in tiny shops whose right answer is known, and against their definitions, item by item."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from prorec_core.data.sequences import Split, from_lists
from prorec_core.evaluation.heuristics import base
from prorec_core.evaluation.heuristics.base import Catalogue
from prorec_core.evaluation.heuristics.neighbours import ItemKnn, NearestText
from prorec_core.evaluation.heuristics.transitions import TEMPERATURE, Transitions, TransitionsAndTexts
from prorec_core.metrics.scorers import SCORERS

ITEMS = 6
TEXTS = np.random.default_rng(3).normal(size=(ITEMS, 4)).astype(np.float32)
histories = st.lists(
    st.lists(st.integers(0, ITEMS - 1), max_size=5).map(lambda items: np.array(items, np.int32)), min_size=1, max_size=6
)


def lists(*items: list[int]) -> list[np.ndarray]:
    return [np.array(each, np.int32) for each in items]


def ordered(scores: np.ndarray, training: list[np.ndarray], history: np.ndarray, masked: bool) -> list[int]:
    """Items by score, equal ones by how often they occur in training, then by index."""
    counts = np.bincount(np.concatenate([*training, np.zeros(0, np.int32)]), minlength=ITEMS)
    order = sorted(range(ITEMS), key=lambda item: (-scores[item], -counts[item], item))
    return [item for item in order if not masked or item not in history]


def followed(training: list[np.ndarray]) -> np.ndarray:
    table = np.zeros((ITEMS, ITEMS))
    for items in training:
        for first, second in pairwise(items):
            table[first, second] += 1
    return table


def at_sum_one(table: np.ndarray) -> np.ndarray:
    sums = table.sum(1, keepdims=True)
    return np.divide(table, sums, out=np.zeros_like(table), where=sums > 0)


def alike(texts: np.ndarray) -> np.ndarray:
    directions = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    masses = np.exp(directions @ directions.T / TEMPERATURE)
    np.fill_diagonal(masses, 0)
    return at_sum_one(masses)


def walked(history: np.ndarray, graph: np.ndarray, before: float, ring: float) -> np.ndarray:
    at, total = np.zeros(ITEMS), np.zeros(ITEMS)
    for item, weight in zip(history[::-1][:2], (1, before), strict=False):
        at[item] += weight
    for steps in range(3):
        at = at @ graph
        total += ring**steps * at
    return total


def close(found: np.ndarray, scores: np.ndarray, expected: list[int]) -> None:
    """The same lists; items whose scores differ by rounding alone may change places."""
    assert sorted(found[found >= 0].tolist()) == sorted(expected)
    assert [round(scores[item], 4) for item in found[found >= 0]] == [round(scores[item], 4) for item in expected]


@settings(max_examples=40)
@given(histories, histories, st.booleans(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.5, 2.0]))
def test_walks_are_those_of_the_definition(training, asked, masked, before, ring):
    for kind, graph in (
        (Transitions, at_sum_one(followed(training))),
        (TransitionsAndTexts, at_sum_one(0.75 * at_sum_one(followed(training)) + 0.25 * alike(TEXTS))),
    ):
        catalogue = Catalogue(kind, from_lists(training, ITEMS), ITEMS, TEXTS)
        setting = {"before": before, "ring": ring, "text": 0.25}
        found = catalogue.lists(setting, from_lists(asked, ITEMS), ITEMS, masked=masked)
        for user, history in enumerate(asked):
            scores = walked(history, graph, before, ring)
            close(found.items_UK[user], scores, ordered(scores, training, history, masked))


@settings(max_examples=40)
@given(histories, histories, st.booleans(), st.sampled_from([0.0, 3.0]), st.integers(1, 3))
def test_item_knn_is_that_of_the_definition(training, asked, masked, shrinkage, neighbours):
    having = np.array([[item in items for item in range(ITEMS)] for items in training], float)
    both = having.T @ having
    counts = np.bincount(np.concatenate([*training, np.zeros(0, np.int32)]), minlength=ITEMS)
    similar = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        cosines = {
            other: both[item, other] / (np.sqrt(both[item, item] * both[other, other]) + shrinkage)
            for other in range(ITEMS)
            if other != item and both[item, other]
        }
        nearest = sorted(cosines, key=lambda other: (-np.float32(cosines[other]), -counts[other], other))
        for other in nearest[:neighbours]:
            similar[item, other] = cosines[other]
    catalogue = Catalogue(ItemKnn, from_lists(training, ITEMS), ITEMS, None)
    setting = {"shrinkage": shrinkage, "neighbours": float(neighbours)}
    found = catalogue.lists(setting, from_lists(asked, ITEMS), ITEMS, masked=masked)
    for user, history in enumerate(asked):
        scores = similar[np.unique(history).astype(int)].sum(0)
        close(found.items_UK[user], scores, ordered(scores, training, history, masked))


@pytest.mark.parametrize("latest", [1, 2, 0])
def test_nearest_text_is_that_of_the_definition(latest: int) -> None:
    training, asked = lists([0, 1], [2, 2]), lists([3, 4, 5], [0], [])
    catalogue = Catalogue(NearestText, from_lists(training, ITEMS), ITEMS, TEXTS)
    found = catalogue.lists({"latest": latest}, from_lists(asked, ITEMS), ITEMS, masked=True)
    directions = TEXTS / np.linalg.norm(TEXTS, axis=1, keepdims=True)
    for user, history in enumerate(asked):
        scores = directions @ directions[history[-latest:]].sum(0)
        assert found.items_UK[user][found.items_UK[user] >= 0].tolist() == ordered(scores, training, history, True)


def test_what_followed_comes_first_and_texts_fill_in() -> None:
    """After 0 came 1 twice and 2 once; 5 reads like 0, and nobody ever took anything after 4, which reads like 3."""
    training = lists([0, 1], [0, 1], [0, 2], [3, 4])
    texts = np.eye(ITEMS, dtype=np.float32)
    texts[5], texts[4] = texts[0] + 0.1 * texts[5], texts[3] + 0.1 * texts[4]
    asked = from_lists(lists([0], [4]), ITEMS)
    ids = Catalogue(Transitions, from_lists(training, ITEMS), ITEMS, None)
    found = ids.lists(Transitions.default(), asked, 4, masked=True).items_UK
    assert found[0].tolist() == [1, 2, 3, 4] and found[1].tolist() == [0, 1, 2, 3], "popular items where counts end"
    both = Catalogue(TransitionsAndTexts, from_lists(training, ITEMS), ITEMS, texts)
    found = both.lists(TransitionsAndTexts.default(), asked, 3, masked=True).items_UK
    assert found[0].tolist() == [1, 2, 5] and found[1, 0] == 3


def test_what_a_user_has_may_come_again() -> None:
    """Whoever took 0 and 1 in turn takes 0 again; the own items stand in a list that is longer by them."""
    training = from_lists(lists([0, 1, 0, 1], [0, 1, 0], [2, 3]), ITEMS)
    asked = from_lists(lists([0, 1]), ITEMS)
    catalogue = Catalogue(Transitions, training, ITEMS, None)
    assert catalogue.lists(Transitions.default(), asked, 1, masked=False).items_UK.tolist() == [[0]]
    assert catalogue.lists(Transitions.default(), asked, 1, masked=True).items_UK.tolist() == [[2]]
    longer = catalogue.lists(Transitions.default(), asked, 1, masked=False, own=2)
    assert longer.items_UK.tolist() == [[0, 1, -1]], "each once"


def test_what_only_a_ranker_finds_comes_after_the_list() -> None:
    """5 has never followed 0 and 1, but is near by who has them; 4 is nearer, and the user's own."""
    training = from_lists(lists([0, 1, 0, 1], [0, 1, 0], [2, 3], [2, 3], [2, 5]), ITEMS)
    strength = np.zeros((1, ITEMS), np.float32)
    strength[0, [4, 5, 2]] = 3, 2, 1
    catalogue, asked = Catalogue(Transitions, training, ITEMS, None), from_lists(lists([0, 4, 1]), ITEMS)
    for masked, wanted in ((True, [2, 5, -1]), (False, [0, 4, 5, 2])):
        found = catalogue.lists(
            Transitions.default(), asked, 1, masked=masked, near=lambda some: sparse.csr_matrix(strength)
        ).items_UK[0]
        assert found.tolist()[: len(wanted)] == wanted and (found[len(wanted) :] == -1).all()


def test_validation_chooses_and_test_is_not_looked_at() -> None:
    """Everyone goes round a ring of items, but for the last step, which leads nowhere that anybody went."""
    random = np.random.default_rng(0)
    steps = [(random.integers(0, 30) + np.arange(6)) % 30 for _ in range(200)]
    ring = [np.append(each, random.integers(0, 30)).astype(np.int32) for each in steps]
    for end in (0, 7):
        changed = [np.append(each[:-1], end).astype(np.int32) for each in ring]
        sequences = from_lists(changed, 30)
        catalogue = Catalogue(Transitions, sequences.training(), 30, None)
        setting, trials = catalogue.choose(sequences, masked=True)
        assert setting == {"before": 0.25, "ring": 0.6}, "of equal ones the first"
        assert max(trial.ndcg_at_10 for trial in trials) == 1.0
        assert len(trials) == len(Transitions.axes["before"]) * len(Transitions.axes["ring"])
    everything = sequences.with_validation_in_training()
    assert Catalogue(Transitions, everything.training(), 30, None).choose(everything, masked=True) == (
        Transitions.default(),
        [],
    )


def test_ranks_are_places_in_the_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    sequences = from_lists([random.permutation(20)[: 3 + user % 4].astype(np.int32) for user in range(50)], 20)
    texts = random.normal(size=(20, 4)).astype(np.float32)
    histories, targets = sequences.histories(Split.TEST), sequences.targets(Split.TEST).copy()
    targets[0] = 20  # training never saw it
    for kind in (Transitions, TransitionsAndTexts, ItemKnn, NearestText):
        catalogue = Catalogue(kind, sequences.training(), 20, texts)
        whole = catalogue.lists(kind.default(), histories, 20, masked=True)
        (ranks,) = catalogue.ranks([kind.default()], histories, targets, masked=True)
        assert ranks.tolist() == [
            items.index(target) + 1 if target in items else 0
            for items, target in zip(whole.items_UK.tolist(), targets.tolist(), strict=True)
        ]
        monkeypatch.setattr(base, "_FEWEST", 3)
        monkeypatch.setattr(base, "_CELLS", 1)
        parts = catalogue.lists(kind.default(), histories, 20, masked=True)
        assert np.array_equal(whole.items_UK, parts.items_UK), "batches of users leave no seam"
        monkeypatch.undo()


def test_every_row_of_a_heuristic_names_one() -> None:
    for name, row in SCORERS.items():
        if row.heuristic:
            kind = row.heuristic_class()
            assert set().union(*kind.rounds) == set(kind.axes), name
            assert issubclass(kind, base.Heuristic) and row.reranked and row.recommends
