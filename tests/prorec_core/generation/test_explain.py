"""Reasons: contributions add up, each names what it looked at, and codes have words."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.generation.allowed import AllowedItems
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.explain import POPULAR, explain, reasons
from prorec_core.generation.features import FEATURES, OWN
from prorec_core.generation.ranker import Ranker
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.relations import Relations
from prorec_core.generation.scoring import Ranked
from prorec_core.generation.similar import BESIDE_CANDIDATES
from prorec_core.generation.trie import CodeTrie
from prorec_core.generation.words import CodeWords
from tests.tiny_model import IDS, tiny_recommender

from .conftest import N_ITEMS
from .test_rules import recommender_of

HISTORIES = from_lists([np.array(h, np.int32) for h in ([2, 4], [], [7], [11, 3, 5, 8, 1, 9])], N_ITEMS)


@pytest.mark.parametrize("scorer", ["ranked", "fused", "dense", "generative"])
def test_contributions_add_up_to_the_score_less_the_baseline(
    make_generator: Any, make_config: Any, scorer: str
) -> None:
    recommender = recommender_of(make_generator(make_config()), scorer)
    rule = AllowedItems.of(recommender.generator.trie, torch.arange(N_ITEMS) % 2 == 0)
    for rules in (None, [rule, rule, None, rule]):
        best = recommender.top(HISTORIES, 6, rules=rules)
        told = explain(recommender, HISTORIES, 6, rules=rules)
        assert np.array_equal(told.items_UK, best.items_UK) and told.scorer == scorer
        np.testing.assert_array_equal(told.scores_UK, best.scores_UK)
        found = recommender.candidates(HISTORIES.select(np.array([0])), 6, rules=None if rules is None else rules[:1])
        terms = recommender.scoring.terms(found, HISTORIES.select(np.array([0])))
        assert told.baseline_U[0] == pytest.approx(np.nanmean(terms.sum(-1)), rel=1e-5)
        for user in (0, 2, 3):
            added = told.contributions_UKF[user].sum(-1) + told.baseline_U[user]
            np.testing.assert_allclose(added, told.scores_UK[user], rtol=1e-4, atol=1e-4)
        assert np.isnan(told.baseline_U[1]) and np.isnan(told.contributions_UKF[1]).all()


def test_each_of_the_other_scores_is_explained_from_the_same_candidates(make_generator: Any, make_config: Any) -> None:
    recommender = recommender_of(make_generator(make_config()), "ranked")
    known = HISTORIES.select(np.array([0]))
    found = recommender.candidates(known, 5)
    assert {each.name for each in recommender.others} == {"fused", "dense", "generative"}
    for scoring in recommender.others:
        told = explain(recommender, known, 5, scoring=scoring, found=found)
        assert np.array_equal(told.items_UK, scoring(found, known, 5)[0]) and told.scorer == scoring.name


@pytest.mark.parametrize("scorer", ["ranked", "fused", "dense", "generative"])
def test_only_a_ranker_is_given_what_only_it_finds(
    make_generator: Any, make_config: Any, monkeypatch: pytest.MonkeyPatch, scorer: str
) -> None:
    recommender, asked = recommender_of(make_generator(make_config()), scorer), list[int]()
    near = Relations.near

    def note(self: Relations, histories: Sequences) -> Any:
        asked.append(histories.n_users)
        return near(self, histories)

    monkeypatch.setattr(Relations, "near", note)
    recommender.top(HISTORIES, 6)
    explain(recommender, HISTORIES, 6)
    assert bool(asked) is (scorer == "ranked")
    assert recommender.candidates(HISTORIES.select(np.array([0])), 6).beside == BESIDE_CANDIDATES, "all that is shown"


def test_a_ranker_of_repeats_tells_two_parts_more(make_generator: Any, make_config: Any) -> None:
    recommender = recommender_of(make_generator(make_config()), "ranked")
    assert isinstance(recommender.scoring, Ranked)
    ranker = recommender.scoring.ranker
    weights = np.append(ranker.weights_F, [0.3, 0.7])
    recommender.scoring = Ranked(Ranker(ranker.relations, weights, weights[None]))
    recommender.history_masked = False
    told = explain(recommender, HISTORIES, 24)
    assert tuple(told.parts) == (*FEATURES, *OWN)
    added = told.contributions_UKF[3].sum(-1) + told.baseline_U[3]
    np.testing.assert_allclose(added, told.scores_UK[3], rtol=1e-4, atol=1e-4)
    assert set(told.items_UK[3]) >= {11, 3, 5, 8, 1, 9}, "as the model was measured"


def test_a_reason_names_the_latest_items_that_it_looks_at(make_generator: Any, make_config: Any) -> None:
    recommender = recommender_of(make_generator(make_config()), "ranked")
    scoring = recommender.scoring
    assert isinstance(scoring, Ranked)
    relations = scoring.ranker.relations
    told = explain(recommender, HISTORIES, 8)
    latest = [9, 1, 8, 5, 3]
    for place, item in enumerate(told.items_UK[3]):
        times = [relations.successors[one, item] * 0.6**back for back, one in enumerate(latest)]
        expected = latest[int(np.argmax(times))] if max(times) > 0 else -1
        assert told.followed_UK[3, place] == expected
        cosines = [float(relations.texts_NT[one] @ relations.texts_NT[item]) for one in latest]
        assert told.similar_UK[3, place] == latest[int(np.argmax(cosines))]
        assert told.cosine_UK[3, place] == pytest.approx(max(cosines), abs=1e-5)


def test_reasons_are_in_words(make_generator: Any, make_config: Any) -> None:
    recommender = recommender_of(make_generator(make_config()), "ranked")
    told = explain(recommender, HISTORIES, 4)
    for reason, score, item in zip(reasons(recommender, told, 0), told.scores_UK[0], told.items_UK[0], strict=True):
        assert [part.name for part in reason.parts] == list(FEATURES)
        assert reason.baseline is not None
        assert sum(part.contribution for part in reason.parts) == pytest.approx(score - reason.baseline, abs=1e-4)
        assert reason.parts[4].value == recommender.train_counts[item]
        assert [step.code for step in reason.steps] == recommender.generator.trie.codes[item].tolist()
        log_p = [step.log_probability for step in reason.steps]
        assert sum(each or 0.0 for each in log_p) == pytest.approx(reason.parts[0].value, abs=1e-4)
        assert reason.steps[-1].shared.items == 1 and not reason.steps[-1].shared.words
    popular = reasons(recommender, told, 1)
    assert {each.scorer for each in popular} == {POPULAR} and not popular[0].parts
    assert popular[0].steps[0].log_probability is None


def test_codes_are_told_by_what_their_items_share() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 0]], np.uint16)
    titles = ["Red Tea, large", "Green TEA & cup", "tea of the Hills", "Blue cup", "blue Plate of clay", "Blue tea"]
    words = CodeWords(CodeTrie.from_codes(codes), titles, most=2)
    assert words.of(1, 0).words[0] == "tea" and words.of(1, 0).items == 3
    assert words.of(1, 1).words == ("blue",)
    assert (words.of(1, 2).words, words.of(1, 2).items) == ((), 1)
    assert words.of(2, 0).items == 1
    assert words.of(1, 0) is words.of(1, 0)
    assert copy.deepcopy(words).of(1, 0) == words.of(1, 0)
    nothing = CodeWords(CodeTrie.from_codes(codes), ["", "…", "a", "b", "c", "d"])
    assert nothing.of(1, 0).words == ()


def test_a_list_that_withdrawn_items_shorten_is_explained() -> None:
    whole = tiny_recommender()
    gone = Catalogue.of_training(24).with_withdrawn(np.array([3, 9]), True)
    frame = pl.DataFrame({"item_id": IDS, "title": IDS, "train_count": whole.train_counts})
    recommender = Recommender(whole.generator, frame, whole.scoring, 20, catalogue=gone)
    histories = from_lists([np.array([1, 2], np.int32), np.zeros(0, np.int32)], 24)
    told, best = explain(recommender, histories, 24), recommender.top(histories, 24)
    assert np.array_equal(told.items_UK, best.items_UK) and told.items_UK.shape == (2, 22)
