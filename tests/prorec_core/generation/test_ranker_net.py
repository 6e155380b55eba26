"""The network that goes on from a linear ranker: it starts as that, learns what bends, and ranks where it is better."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data.sequences import from_lists
from prorec_core.generation import ranker, ranker_net, scoring
from prorec_core.generation.candidates import Candidates
from prorec_core.generation.choice import choose
from prorec_core.generation.features import FEATURES
from prorec_core.generation.ranker import FOLDS, Ranker, fit_ranker
from prorec_core.generation.ranker_net import Examples, Network
from prorec_core.generation.relations import Relations
from prorec_core.generation.scoring import Ranked, shapley
from prorec_core.generation.trained import TrainedGenerator, ranker_tensors
from prorec_core.metrics.measures import ndcg_at_k
from prorec_core.metrics.top import rank_of_target
from prorec_core.progress import Progress

USERS, CANDIDATES = 500, 20


def _world(bent: bool) -> tuple[Candidates, np.ndarray]:
    """Candidates whose target is that of the highest dense score or, where it bends, that nearest to a middle one."""
    random = np.random.default_rng(0)
    items = np.stack([random.permutation(CANDIDATES) for _ in range(USERS)]).astype(np.int32)
    generative, dense = random.normal(size=(2, USERS, CANDIDATES)).astype(np.float32)
    place = np.abs(dense - 0.4).argmin(1) if bent else (dense + generative).argmax(1)
    return Candidates(items, generative, dense, CANDIDATES), items[np.arange(USERS), place]


def _relations() -> Relations:
    texts = np.random.default_rng(1).normal(size=(CANDIDATES, 3)).astype(np.float32)
    return Relations.of(from_lists([np.array([0, 1], np.int32)], CANDIDATES), texts)


HISTORIES = from_lists([np.array([0], np.int32)] * USERS, CANDIDATES)


@pytest.fixture(autouse=True)
def _longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranker_net, "EPOCHS", 60)


def test_what_no_weights_can_say_is_learnt_and_ranks() -> None:
    found, targets = _world(bent=True)
    fitted, about = fit_ranker(found, HISTORIES, targets, _relations())
    assert about["network"] and fitted.network is not None
    assert about["ndcg_at_10"] > about["linear_ndcg_at_10"] + 0.3
    held_out = fitted.rank_held_out(found, HISTORIES, 10)[0]
    assert ndcg_at_k(rank_of_target(held_out, targets), 10) == pytest.approx(about["ndcg_at_10"], abs=2e-3)
    whole = fitted.rank(found, HISTORIES, 10)[0]
    assert ndcg_at_k(rank_of_target(whole, targets), 10) >= about["ndcg_at_10"]


def test_where_weights_say_it_all_they_rank() -> None:
    found, targets = _world(bent=False)
    fitted, about = fit_ranker(found, HISTORIES, targets, _relations())
    assert fitted.network is None and not about["network"]
    assert about["ndcg_at_10"] == about["linear_ndcg_at_10"] > 0.95


@pytest.mark.parametrize("gained", [0.001, -0.001])
def test_the_higher_mean_decides_however_little_it_is(gained: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def gains_of(problem: ranker._Problem, _: list[Network]) -> np.ndarray:
        # Far more between users than in their mean.
        of_weights = problem.held_out(tuple(range(problem.features_UCF.shape[2])))[1]
        return of_weights + np.where(np.arange(USERS) % 2, 0.5, -0.5) + gained

    monkeypatch.setattr(ranker_net, "EPOCHS", 1)
    monkeypatch.setattr(ranker._Problem, "gains_of", gains_of)
    found, targets = _world(bent=True)
    fitted, about = fit_ranker(found, HISTORIES, targets, _relations())
    assert about["network"] is (fitted.network is not None) is (gained > 0)
    assert about["ndcg_at_10"] == pytest.approx(about["linear_ndcg_at_10"] + max(gained, 0), abs=2e-6)


def test_nobody_is_ranked_by_what_was_fitted_on_that_user() -> None:
    found, targets = _world(bent=True)
    before, _ = fit_ranker(found, HISTORIES, targets, _relations())
    user = 7
    targets[user] = found.items_UC[user, (found.items_UC[user] == targets[user]).argmax() - 1]
    after, _ = fit_ranker(found, HISTORIES, targets, _relations())
    assert before.network is not None and after.network is not None
    same = [torch.equal(*pair) for pair in zip(before.network.first_GFH, after.network.first_GFH, strict=True)]
    assert same == [False, *(fold == user % FOLDS for fold in range(FOLDS))]


def test_it_starts_as_the_linear_ranker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranker_net, "EPOCHS", 0)
    found, targets = _world(bent=True)
    known = _relations()
    features = known.features(found, HISTORIES, np.arange(USERS))
    weights = np.array([[0.5, -1.0, 2.0, 1.0, 0.25, -0.5, 0.5], [1.0, 1.0, 0.0, -1.0, 3.0, 0.5, 1.0]])
    places = (found.items_UC == targets[:, None]).argmax(1)
    examples = Examples.of(features, found.items_UC >= 0, places)
    network = Network.stacked([examples.train(each, np.arange(USERS), 0) for each in weights])
    scale = np.array([2.0, 0.5, 1.0, 4.0, 1.0, 2.0, 1.0])
    for which in (0, 1):
        linear = features @ weights[which]
        for scores in (
            network.scores(features, np.full(USERS, which)),
            network.scaled(scale).scores(features * scale.astype(np.float32), np.full(USERS, which)),
        ):
            assert scores - scores[:, :1] == pytest.approx(linear - linear[:, :1], rel=1e-3, abs=1e-3)


def test_it_is_kept_as_tensors_and_users_are_scored_alike_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, targets = _world(bent=True)
    fitted, _ = fit_ranker(found, HISTORIES, targets, _relations())
    assert fitted.network is not None
    again = Network.from_tensors(fitted.network.tensors())
    features = _relations().features(found, HISTORIES, np.arange(USERS))
    which = np.arange(USERS) % (FOLDS + 1)
    whole = fitted.network.scores(features, which)
    monkeypatch.setattr(ranker_net, "_CELLS", 1)
    assert again.scores(features, which) == pytest.approx(whole, abs=1e-4)
    assert fitted.network.numbers == sum(
        each[0].numel() if each.dim() > 1 else each.numel() for each in fitted.network.tensors().values()
    )


def test_it_is_chosen_kept_with_the_generator_and_ranks_as_before() -> None:
    found, targets = _world(bent=True)
    known = _relations()
    chosen, network = choose(lambda: found, [1.0], known, HISTORIES, targets)
    assert network is not None and chosen["recommended"] == "ranked" and chosen["ranker"]["network"]
    again = TrainedGenerator(ranker_tensors(known, network), json.loads(json.dumps(chosen)), []).ranker
    fitted, _ = fit_ranker(found, HISTORIES, targets, known)
    assert again is not None
    for have, wanted in zip(again.rank(found, HISTORIES, 5), fitted.rank(found, HISTORIES, 5), strict=True):
        assert have.tolist() == wanted.tolist()
    # Without the network the weights rank, and not as it does.
    of_weights = TrainedGenerator(ranker_tensors(known, None), chosen, []).ranker
    assert of_weights is not None and of_weights.network is None
    assert of_weights.rank(found, HISTORIES, 5)[0].tolist() != again.rank(found, HISTORIES, 5)[0].tolist()


def test_its_parts_add_up_to_its_score() -> None:
    found, targets = _world(bent=True)
    fitted, _ = fit_ranker(found, HISTORIES, targets, _relations())
    scored = Ranked(fitted)
    items, scores = scored(found, HISTORIES, 5)
    places = np.stack(
        [[list(row).index(item) for item in best] for row, best in zip(found.items_UC, items, strict=True)]
    )
    baseline, parts = scored.contributions(found, HISTORIES, places)
    assert parts.shape == (USERS, 5, len(FEATURES))
    assert baseline[:, None] + parts.sum(-1) == pytest.approx(scores, abs=1e-3)
    assert np.abs(parts[:, 0, FEATURES.index("dense")]).mean() > np.abs(parts[:, 0, 0]).mean()


@given(st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=30)
def test_a_part_is_the_mean_over_all_orders(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    table = random.normal(size=(2,) * count)

    def score(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.array([table[tuple((row > 0.5).astype(int))] for row in rows])
        return found

    start, end = np.zeros((1, count)), np.ones((1, 1, count))
    baseline, parts = shapley(score, start, end)
    wanted, orders = np.zeros(count), list(permutations(range(count)))
    for order in orders:
        row = np.zeros(count)
        for feature in order:
            before = score(row[None])[0]
            row[feature] = 1
            wanted[feature] += (score(row[None])[0] - before) / len(orders)
    assert baseline == pytest.approx(table[(0,) * count]) and parts[0, 0] == pytest.approx(wanted, abs=1e-9)


def test_of_few_targets_none_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranker, "NETWORK_FROM", USERS + 1)
    monkeypatch.delattr(Examples, "train")
    found, targets = _world(bent=True)
    fitted, about = fit_ranker(found, HISTORIES, targets, _relations())
    assert fitted.network is None and not about["network"] and about["ndcg_at_10"] == about["linear_ndcg_at_10"]


def test_every_network_is_reported() -> None:
    told: list[Progress] = []
    fit_ranker(*(_world(bent=True)[0], HISTORIES, _world(bent=True)[1], _relations()), report=told.append)
    assert [(each.step, each.total) for each in told] == [(step, FOLDS + 1) for step in range(1, FOLDS + 2)]


def test_many_parts_are_told_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    start, end = random.normal(size=(3, 4)), random.normal(size=(3, 5, 4))
    end[1, 4] = np.nan
    asked: list[int] = []

    def score(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        found: np.ndarray = (rows**2).sum(1) + rows[:, 0] * rows[:, 1]
        return found

    whole = shapley(score, start, end)
    monkeypatch.setattr(scoring, "_ROWS", 33)
    parts = shapley(score, start, end)
    assert max(asked[-8:]) <= 33 < max(asked)
    for some, every in zip(parts, whole, strict=True):
        assert some == pytest.approx(every)


def test_without_users_nothing_is_trained() -> None:
    none = Candidates(np.zeros((0, 3), np.int32), *(np.zeros((0, 3), np.float32) for _ in range(2)), 3)
    fitted, about = fit_ranker(none, from_lists([], CANDIDATES), np.zeros(0, np.int32), _relations())
    assert isinstance(fitted, Ranker) and fitted.network is None and not about["network"]
