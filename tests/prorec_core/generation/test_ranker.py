"""The ranker of candidates: features whose values are known, and fits whose outcome is planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.generation.candidates import Candidates
from prorec_core.generation.features import EARLIER, FEATURES, OWN
from prorec_core.generation.ranker import FOLDS, Ranker, fit_ranker
from prorec_core.generation.relations import LATEST, Relations
from prorec_core.generation.similar import had, similar_items

NONE = -np.inf
N_ITEMS = 12
SUCCESSOR = FEATURES.index("successor")


def histories(*lists: list[int], n_items: int = N_ITEMS) -> Sequences:
    return from_lists([np.array(items, np.int32) for items in lists], n_items)


def relations(training: Sequences, n_items: int = N_ITEMS) -> Relations:
    return Relations.of(training, np.random.default_rng(0).normal(size=(n_items, 5)).astype(np.float32))


def candidates(items: list[list[int]], generative: float = -1.0, dense: float = -2.0) -> Candidates:
    items_UC = np.array(items, np.int32)
    there = items_UC >= 0
    scores = [np.where(there, value, NONE).astype(np.float32) for value in (generative, dense)]
    return Candidates(items_UC, *scores, beams=items_UC.shape[1])


def test_what_follows_what_is_counted_with_its_distance_and_never_across_users() -> None:
    found = relations(histories([0, 1, 2], [1, 2, 0, 3, 4, 5, 6], [7]))
    successors = found.successors.toarray()
    assert successors[1, 2] == 2
    assert successors[0, 1] == 1 and successors[0, 2] == pytest.approx(0.8)
    assert successors[2, 1] == 0 == successors[2, 7], "counted is what comes after, of the same user"
    assert successors[1, 5] == pytest.approx(0.8**4) and successors[1, 6] == 0, "five steps and no more"
    assert found.counts_N.tolist() == [2, 2, 2, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert np.linalg.norm(found.texts_NT, axis=1) == pytest.approx(np.ones(N_ITEMS))


def test_features_of_known_candidates() -> None:
    known = relations(histories([0, 1, 2], [1, 2, 0, 3, 4, 5, 6]))
    asked = histories([1, 0], [])
    features = known.features(candidates([[2, 9, -1], [2, 3, 4]]), asked, np.array([0, 1]))
    assert features.shape == (2, 3, len(FEATURES)) and features.dtype == np.float32
    assert (features[0, 2] == 0).all(), "no candidate, no feature"
    assert features[0, 0, :2].tolist() == [-1, -2]
    # The latest item is 0, which 2 followed at distance two; before it 1, which 2 followed twice.
    assert features[0, 0, 2] == pytest.approx(np.log1p(0.8 + 0.6 * 2))
    cosines = known.texts_NT[[0, 1]] @ known.texts_NT[[2, 9]].T
    assert features[0, :2, 3] == pytest.approx(cosines.max(0), abs=1e-6)
    assert features[0, :2, 4] == pytest.approx(np.log1p([2, 0]))
    assert (features[1, :, 2:4] == 0).all(), "nothing is near an empty history"
    again = known.features(candidates([[2, 9, -1], [2, 3, 4]]), asked, np.array([1]))
    assert again.tolist() == features[1:].tolist()


def test_what_has_no_dense_score_counts_nothing_there_or_as_the_least() -> None:
    found = candidates([[2, 3], [2, 3]])
    found.dense_UC[:] = [[NONE, NONE], [NONE, -5]]
    features = relations(histories([0, 1])).features(found, histories([0], [0]), np.array([0, 1]))
    assert features[..., 1].tolist() == [[0, 0], [-5, -5]]


def test_what_the_same_users_have_is_near_from_both_sides() -> None:
    training = histories([0, 1], [1, 0, 0], [1, 2], [3])
    known = relations(training)
    one, two = 2 / (np.sqrt(2 * 3) + 10), 1 / (np.sqrt(3 * 1) + 10)
    assert known.similar is not None
    assert known.similar[0, 1] == known.similar[1, 0] == pytest.approx(one), "however often a user has it"
    assert known.similar[1, 2] == pytest.approx(two) and known.similar[0, 2] == 0 == known.similar.diagonal().sum()
    features = known.features(candidates([[0, 1, 2], [2, 3, 4]]), histories([1, 0, 1], []), np.array([0, 1]))
    place = FEATURES.index("item_knn")
    before = FEATURES.index("predecessor")
    assert features[0, :, before] == pytest.approx(np.log1p([1 + 0.6 + 0.36, 0.6 * 1.8, 0])), "of 1, 0 and 1"
    assert features[0, :, place] == pytest.approx(np.log1p(20 * np.array([one, one, two])))
    assert (features[1, :, place] == 0).all()
    without = Relations.of(training, known.texts_NT, later=False)
    assert without.names(own=False) == EARLIER and known.names(own=True) == (*FEATURES, *OWN)
    asked = candidates([[0, 1, 2]]), histories([1]), np.array([0])
    assert without.features(*asked).tolist() == known.features(*asked)[:, :, :-2].tolist()


def test_only_the_latest_items_and_the_most_similar_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prorec_core.generation.relations.LATEST_HAD", 2)
    monkeypatch.setattr("prorec_core.generation.relations.MOST_SIMILAR", 1)
    known = relations(histories([9, 0, 1], [1, 2], [1, 2], [2, 3]))
    assert known.similar is not None
    assert known.similar.nonzero()[1].tolist() == [1, 2, 1, 2], "of 0, 1, 2 and 3: 9 is too long ago"
    found = known.features(candidates([[2, 1]]), histories([1, 0, 5]), np.array([0]))[0, :, FEATURES.index("item_knn")]
    assert found[0] == 0 < found[1], "1 is too long ago"


@pytest.mark.parametrize("pairs", [1, 7, 40])
def test_who_shares_what_is_counted_alike_in_pieces(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    random = np.random.default_rng(2)
    training = histories(*(random.integers(0, N_ITEMS - 2, 5).tolist() for _ in range(20)))
    whole, ranks = similar_items(had(training), 3.0, 4)
    monkeypatch.setattr("prorec_core.generation.similar.PAIRS", pairs)
    pieces, again = similar_items(had(training), 3.0, 4)
    assert whole.nnz == 4 * (N_ITEMS - 2) and (whole != pieces).nnz == 0 and ranks.tolist() == again.tolist()
    nothing, _ = similar_items(had(from_lists([], 0)), 3.0, 4)
    assert nothing.shape == (0, 0)


def test_only_the_five_latest_items_are_asked() -> None:
    known = relations(histories([0, 7], [1, 8]))
    follows = known.features(candidates([[7, 8]]), histories([0, 1, 2, 3, 4, 5]), np.array([0]))[0, :, 2]
    assert follows[0] == 0 and follows[1] == pytest.approx(np.log1p(0.6**4))


def test_a_new_item_counts_as_what_is_nearest_by_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prorec_core.alignment.new_items.SIMILAR", 2)
    training = histories([0, 1], [0, 1], [0, 2], [3, 0], n_items=4)
    texts = np.array([[1, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 1], [0, 5, 0.1], [0, 0, -1]], np.float32)
    known, grown = Relations.of(training, texts[:4]), Relations.of(training, texts)
    assert np.array_equal(grown.successors.toarray()[:4, :4], known.successors.toarray())
    assert grown.counts_N.tolist() == [4, 2, 1, 1, 1.5, 3], "the last one is as near to 0 as to 1 and 2"
    assert grown.successors[0, 4] == 1.5 and grown.successors[3, 4] == 0, "half of what 1 and half of what 2 has"
    assert grown.successors[5, 4] == 0.75, "as history, too"
    assert known.similar is not None and grown.similar is not None
    assert np.array_equal(grown.similar.toarray()[:4, :4], known.similar.toarray())
    assert grown.similar[0, 4] == pytest.approx((known.similar[0, 1] + known.similar[0, 2]) / 2)
    monkeypatch.setattr("prorec_core.alignment.new_items._CHUNK", 1)
    assert (Relations.of(training, texts).successors != grown.successors).nnz == 0


def test_a_new_item_without_text_is_taken_as_often_as_items_are() -> None:
    training = histories([0, 1], [0, 1], [0, 2], [3, 0], n_items=4)
    texts = np.array([[1, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    grown = Relations.of(training, texts)
    assert grown.counts_N.tolist() == [4, 2, 1, 1, 2]
    assert grown.similar is not None
    for table in (grown.successors, grown.similar):
        assert table[4].nnz == table[:, 4].nnz == 0, "of what it follows nothing is known"


def test_however_many_items_come_few_stand_beside_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prorec_core.generation.relations.MOST_SIMILAR", 2)
    random = np.random.default_rng(4)
    known = relations(histories(*(random.permutation(N_ITEMS)[:5].tolist() for _ in range(30))))
    grown = known.with_more(random.normal(size=(40, 5)).astype(np.float32), N_ITEMS)
    assert known.similar is not None and grown.similar is not None
    assert (grown.similar[:N_ITEMS, :N_ITEMS] != known.similar).nnz == 0
    for columns in (slice(N_ITEMS), slice(N_ITEMS, None)):
        lengths = np.diff(grown.similar[:, columns].tocsr().indptr)
        assert lengths.max() == 2 and (lengths > 0).mean() > 0.9


def test_relations_come_back_from_tensors() -> None:
    known = relations(histories([0, 1, 2], [1, 2, 0, 3]))
    again = Relations.from_tensors(known.tensors())
    assert (again.successors != known.successors).nnz == 0
    assert again.similar is not None and known.similar is not None and (again.similar != known.similar).nnz == 0
    earlier = {name: tensor for name, tensor in known.tensors().items() if not name.startswith("similar.")}
    assert Relations.from_tensors(earlier).similar is None
    assert np.array_equal(again.texts_NT, known.texts_NT) and np.array_equal(again.counts_N, known.counts_N)


def chain(users: int = 200) -> tuple[Candidates, Sequences, np.ndarray, Relations]:
    """Item i is always followed by i + 1; both scores are noise, so that only the successor tells the target."""
    random = np.random.default_rng(3)
    last = random.integers(0, N_ITEMS, users)
    known = relations(histories(*[[item, (item + 1) % N_ITEMS] for item in range(N_ITEMS)] * 3))
    items = np.array([random.permutation(N_ITEMS) for _ in range(users)], np.int32)
    noise = [random.normal(size=items.shape).astype(np.float32) for _ in range(2)]
    return Candidates(items, *noise, N_ITEMS), histories(*[[item] for item in last]), (last + 1) % N_ITEMS, known


def test_a_fit_finds_what_tells_the_target() -> None:
    found, asked, targets, known = chain()
    assert fit_ranker(found, asked, targets.astype(np.int32), known)[1]["features"] == list(FEATURES)
    known = replace(known, similar=None)
    ranker, about = fit_ranker(found, asked, targets.astype(np.int32), known)
    assert about["features"] == list(EARLIER), "what comes before and what users share tell the target too"
    assert int(np.argmax(np.abs(about["standardised"]))) == SUCCESSOR and ranker.weights_F[SUCCESSOR] > 1
    assert about["ndcg_at_10"] > 0.99
    assert ranker.rank(found, asked, 1)[0][:, 0].tolist() == targets.tolist()
    lost = about["without"]["successor"]
    assert lost["low"] < lost["difference"] < lost["high"] < -0.3
    assert about["without"]["generative"]["difference"] == pytest.approx(0, abs=0.02)


def test_the_figure_is_that_of_the_lists_of_users_held_out() -> None:
    found, asked, targets, known = chain()
    noise = Candidates(found.items_UC[:, :9], found.generative_UC[:, :9], found.dense_UC[:, :9], 9)
    ranker, about = fit_ranker(noise, asked, targets.astype(np.int32), known)
    items, scores = ranker.rank_held_out(noise, asked, 10)
    hit = items == targets[:, None]
    gains = np.where(hit.any(1), 1 / np.log2(hit.argmax(1) + 2.0), 0.0)
    assert about["ndcg_at_10"] == pytest.approx(gains.mean(), abs=1e-6) and 0.5 < gains.mean() < 0.9
    assert (np.diff(scores[:, :9], axis=1) <= 0).all() and (items[:, 9] == -1).all()


def test_a_user_held_out_is_ranked_by_weights_that_never_saw_that_user() -> None:
    found, asked, targets, known = chain()
    user, moved = 7, targets.copy()
    moved[user] = (targets[user] + 5) % N_ITEMS
    before, after = (fit_ranker(found, asked, each.astype(np.int32), known)[0] for each in (targets, moved))
    assert np.array_equal(before.folds_PF[user % FOLDS], after.folds_PF[user % FOLDS])
    assert not np.array_equal(before.folds_PF[(user + 1) % FOLDS], after.folds_PF[(user + 1) % FOLDS])
    lists = [each.rank_held_out(found, asked, 5)[0][user].tolist() for each in (before, after)]
    assert lists[0] == lists[1]


def test_the_weights_are_where_the_loss_has_no_slope() -> None:
    found, asked, targets, known = chain()
    ranker, about = fit_ranker(found, asked, targets.astype(np.int32), known)
    features = known.features(found, asked, np.arange(asked.n_users)).astype(np.float64)
    spread = features.reshape(-1, len(FEATURES)).std(0)
    spread[spread == 0] = 1
    place = (found.items_UC == targets[:, None]).argmax(1)

    def loss(weights: np.ndarray) -> float:
        scores = features / spread @ weights
        own = scores[np.arange(len(scores)), place]
        return float((np.log(np.exp(scores).sum(1)) - own).mean() + 0.01 * weights @ weights)

    best = np.array(about["standardised"])
    assert ranker.weights_F * spread == pytest.approx(best, abs=1e-5)
    for step in np.eye(len(FEATURES)) * 1e-3:
        assert loss(best) < min(loss(best + step), loss(best - step))


@pytest.mark.parametrize("hits", [[0], [0, 1], [0, 5], [0, 1, 2]])
def test_few_hits_are_measured_as_they_are_ranked(hits: list[int]) -> None:
    """A fold without any gets weights of 0, and all its candidates tie."""
    found, asked, targets, known = chain(20)
    missed = np.full_like(targets, 99)
    missed[hits] = targets[hits]
    ranker, about = fit_ranker(found, asked, missed.astype(np.int32), known)
    hit = ranker.rank_held_out(found, asked, 10)[0] == missed[:, None]
    gains = np.where(hit.any(1), 1 / np.log2(hit.argmax(1) + 2.0), 0.0)
    assert about["ndcg_at_10"] == pytest.approx(gains.mean(), abs=1e-6)


def test_where_no_target_is_a_candidate_nothing_is_learned() -> None:
    found = candidates([[1, 2], [3, 4]])
    ranker, about = fit_ranker(found, histories([0], [0]), np.array([9, 9], np.int32), relations(histories([0, 1])))
    assert ranker.weights_F.tolist() == [0.0] * len(FEATURES) and about["ndcg_at_10"] == 0
    assert ranker.rank(found, histories([0], [0]), 2)[0].tolist() == [[1, 2], [3, 4]]


def test_many_users_are_ranked_as_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked, _, known = chain()
    ranker = Ranker(known, np.arange(1.0, 1 + len(FEATURES)), np.ones((FOLDS, len(FEATURES))))
    whole = ranker.rank(found, asked, 4)
    assert len(list(known.batches(found, np.arange(200)))) == 1
    monkeypatch.setattr("prorec_core.generation.relations._CELLS", 7 * N_ITEMS * (LATEST + len(FEATURES)))
    parts = ranker.rank(found, asked, 4)
    assert len(list(known.batches(found, np.arange(200)))) == 29
    assert whole[0].tolist() == parts[0].tolist() and whole[1] == pytest.approx(parts[1], abs=1e-5)
    crowd = Relations.of(histories(*[list(range(N_ITEMS))] * 2), np.zeros((N_ITEMS, 1), np.float32))
    narrow = Candidates(*(each[:, :1] for each in (found.items_UC, found.generative_UC, found.dense_UC)), 1)
    monkeypatch.setattr("prorec_core.generation.relations._CELLS", 100 * LATEST)
    assert len(list(crowd.batches(narrow, np.arange(200)))) == 8, "room for what followed, about four items each"


def test_very_many_users_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked, targets, known = chain()
    whole, _ = fit_ranker(found, asked, targets.astype(np.int32), known)
    monkeypatch.setattr("prorec_core.generation.ranker._FIT_CELLS", 50 * N_ITEMS * len(FEATURES))
    thinned, about = fit_ranker(found, asked, targets.astype(np.int32), known)
    assert not np.array_equal(whole.weights_F, thinned.weights_F)
    assert about["ndcg_at_10"] > 0.99, "a share of the users measured, not of their gain"


def test_own_items_are_told_by_how_often_and_how_lately() -> None:
    known = relations(histories([0, 1, 2]))
    asked = histories([3, 4, 3, 5], [], [7])
    found = known.features(candidates([[3, 4, 5, 6], [3, 4, 5, 6], [7, 3, -1, 0]]), asked, np.arange(3), own=True)
    assert found.shape[2] == len(FEATURES) + len(OWN)
    counts, recency = found[:, :, -2], found[:, :, -1]
    assert counts[0] == pytest.approx(np.log1p([2, 1, 1, 0]))
    assert recency[0] == pytest.approx([1 / np.log2(3), 1 / np.log2(4), 1.0, 0.0])
    assert (counts[1] == 0).all() and (recency[1] == 0).all(), "who has nothing"
    assert (counts[2].tolist(), recency[2].tolist()) == (pytest.approx([np.log(2), 0, 0, 0]), [1, 0, 0, 0])
    some = known.features(candidates([[3, 4, 5, 6], [3, 4, 5, 6], [7, 3, -1, 0]]), asked, np.array([2]), own=True)
    assert some.tolist() == found[2:].tolist()
    assert (
        found[:, :, : len(FEATURES)].tolist()
        == known.features(candidates([[3, 4, 5, 6], [3, 4, 5, 6], [7, 3, -1, 0]]), asked, np.arange(3)).tolist()
    )


def test_who_buys_again_is_found_by_own_items_alone() -> None:
    random = np.random.default_rng(1)
    items = np.array([random.permutation(N_ITEMS) for _ in range(150)], np.int32)
    noise = [random.normal(size=items.shape).astype(np.float32) for _ in range(2)]
    found, known = Candidates(items, *noise, N_ITEMS), relations(histories([0, 1]))
    targets = random.integers(0, N_ITEMS, 150).astype(np.int32)
    asked = histories(
        *[[int(target), int(target), int((target + random.integers(1, N_ITEMS)) % N_ITEMS)] for target in targets]
    )
    with_own, about = fit_ranker(found, asked, targets, known, own=True)
    without, _ = fit_ranker(found, asked, targets, known)
    assert about["features"] == [*FEATURES, *OWN]
    assert with_own.rank(found, asked, 1)[0][:, 0].tolist() == targets.tolist()
    assert with_own.rank_held_out(found, asked, 1)[0][:, 0].tolist() == targets.tolist()
    assert (without.rank(found, asked, 1)[0][:, 0] == targets).mean() < 0.7


def test_targets_of_one_user_are_held_out_together_and_count_as_one() -> None:
    found, asked, targets, known = chain(120)
    owners = (np.arange(120) // 4).astype(np.int32)
    owners[:40] = 0
    grouped = replace(asked, owner=owners)
    user = 12
    moved = np.where(owners == user, (targets + 5) % N_ITEMS, targets)
    before, after = (fit_ranker(found, grouped, each.astype(np.int32), known)[0] for each in (targets, moved))
    assert np.array_equal(before.folds_PF[user % FOLDS], after.folds_PF[user % FOLDS])
    assert not np.array_equal(before.folds_PF[(user + 1) % FOLDS], after.folds_PF[(user + 1) % FOLDS])
    noise = Candidates(found.items_UC[:, :9], found.generative_UC[:, :9], found.dense_UC[:, :9], 9)
    ranker, about = fit_ranker(noise, grouped, targets.astype(np.int32), known)
    hit = ranker.rank_held_out(noise, grouped, 10)[0] == targets[:, None]
    gains = np.where(hit.any(1), 1 / np.log2(hit.argmax(1) + 2.0), 0.0)
    by_user = [gains[owners == each].mean() for each in np.unique(owners)]
    assert about["ndcg_at_10"] == pytest.approx(np.mean(by_user), abs=1e-6)
    assert abs(np.mean(by_user) - gains.mean()) > 1e-3, "another mean than that over targets"


def test_some_users_keep_the_folds_that_they_have_among_all() -> None:
    found, asked, targets, known = chain()
    users = np.flatnonzero(np.arange(200) % FOLDS < 2)
    few = Candidates(found.items_UC[users], found.generative_UC[users], found.dense_UC[users], found.beams)
    ranker, _ = fit_ranker(few, asked.owned().select(users), targets[users].astype(np.int32), known)
    # Nobody of the last folds was fitted to: leaving them out changes nothing.
    assert [np.array_equal(fold, ranker.weights_F) for fold in ranker.folds_PF] == [False, False, True, True, True]
