"""Which targets a shortcut finds, in a shop where half of the users go round a ring and half go nowhere known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.sequences import Borders, Split
from prorec_core.evaluation import shortcuts
from prorec_core.evaluation.heuristics.measuring import heuristic_inputs
from prorec_core.evaluation.shortcuts import shortcut_metrics
from prorec_core.evaluation.stage import EvaluationInputs, evaluate
from prorec_core.generation.similar import BESIDE_CANDIDATES
from prorec_core.reports.tables import heuristic_line, result_markdown, shortcut_line, shortcut_rows
from tests.data_sets import data_set
from tests.toys import looked_at

USERS, ITEMS, FAR = 100, 40, 20


def shop():
    """Items from 0 on are a ring; every second user ends with an item from 20 on, in no order that counts know."""
    random = np.random.default_rng(2)
    lists = []
    for user in range(USERS):
        items = (user + np.arange(6)) % FAR
        lists.append(np.append(items, (items[-1] + 1) % FAR if user % 2 else FAR + random.integers(0, FAR)))
    everything = [np.arange(FAR, ITEMS), *[each.astype(np.int32) for each in lists]]
    return data_set([each.astype(np.int32) for each in everything], ITEMS)


def test_what_the_shortcut_finds_is_parted_from_the_rest():
    dataset = shop()
    targets = dataset.sequences.targets(Split.TEST)
    # A scorer that has whatever the ring does not have at place 2.
    ranks = {"fused": np.where(targets >= FAR, 2, 0).astype(np.int32)}
    found = shortcut_metrics(ranks, dataset, masked=True)
    assert found["targets"] == found["of"] == USERS + 1
    assert set(found["numbers"]) == {"before", "ring"}
    far = int((targets >= FAR).sum())
    assert found["found"] == USERS + 1 - far and found["share"] == pytest.approx((USERS + 1 - far) / (USERS + 1))
    assert found["rest"]["fused"]["recall_at_10"] == 1.0
    assert found["rest"]["fused"]["ndcg_at_10"] == pytest.approx(1 / np.log2(3))
    assert found["rest"]["fused"]["recall_at_10_standard_error"] == 0.0


def test_users_with_several_targets_count_once(monkeypatch):
    dataset = shop()
    lengths = np.diff(dataset.sequences.offsets)
    dataset = replace(dataset, sequences=replace(dataset.sequences, borders=Borders(lengths - 4, lengths - 2)))
    targets = dataset.sequences.targets(Split.TEST)
    assert len(targets) == 2 * (USERS + 1)
    ranks = {"fused": (targets >= FAR).astype(np.int32)}
    found = shortcut_metrics(ranks, dataset, masked=True)
    assert found["targets"] == len(targets)
    assert 0 < found["rest"]["fused"]["recall_at_10"] <= 1
    monkeypatch.setattr(shortcuts, "MOST_TARGETS", 50)
    fewer = shortcut_metrics(ranks, dataset, masked=True)
    assert fewer["targets"] == 50 and fewer["of"] == len(targets) and "evenly spaced" in shortcut_line(fewer)


def test_an_evaluation_tells_it():
    dataset = shop()
    found = evaluate(EvaluationInputs(EvaluateConfig(bootstrap_samples=100), dataset, {}))
    text = result_markdown(found.metrics)
    assert f"{found.metrics['shortcut']['found']} of {USERS + 1} test targets" in text
    head, row = shortcut_rows(found.metrics)
    assert head == ["scorer", "Recall@10, all", "Recall@10, the others", "NDCG@10, all", "NDCG@10, the others"]
    assert row[0] == "popularity" and f"| {' | '.join(row)} |" in text
    assert heuristic_line(found.metrics) == ""


def test_a_heuristic_is_measured_with_what_a_ranker_makes_of_it(monkeypatch):
    dataset, fitted = shop(), looked_at(monkeypatch, "prorec_core.evaluation.reranking")
    inputs = heuristic_inputs("transitions", dataset, EvaluateConfig(bootstrap_samples=100))
    assert list(inputs.lists[Split.TEST]) == ["transitions", "ranked"] and inputs.recommended
    found = evaluate(inputs).metrics
    assert found["shortcut"]["share"] == found["test"]["transitions"]["recall_at_10"], "it is the shortcut itself"
    assert found["shortcut"]["rest"]["transitions"]["recall_at_10"] == 0.0
    assert "chosen by validation NDCG@10 among 20 settings: before" in result_markdown(found)
    assert "ranked_minus_transitions" in found["comparisons"]
    assert [each.items_UC.shape[1] for each in fitted] == [min(100, ITEMS) + BESIDE_CANDIDATES]


@pytest.mark.parametrize("scorer", ["transitions_text", "item_knn", "nearest_text"])
def test_every_heuristic_may_recommend_again(scorer):
    dataset, config = shop(), EvaluateConfig(bootstrap_samples=100, mask_history=False, list_length=10, beams=10)
    texts = np.random.default_rng(0).normal(size=(ITEMS, 5)).astype(np.float32)
    inputs = heuristic_inputs(scorer, dataset, config, texts if scorer != "item_knn" else None)
    found = evaluate(inputs).metrics
    assert found["protocol"]["history_masked"] is False and 0 <= found["test"][scorer]["recall_at_10"] <= 1
