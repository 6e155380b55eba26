"""Recommending again what a user has, against plain Python; and what is measured where that may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.config_data import DataConfig
from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.sequences import Split, from_lists
from prorec_core.data.stage import preprocess
from prorec_core.evaluation.own_items import lately_taken_lists, often_taken_lists
from prorec_core.evaluation.stage import EvaluationInputs, evaluate

ITEMS = 6
some = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), min_size=1, max_size=5)


@given(some, some, st.integers(1, 8))
def test_own_items_come_first_and_popular_ones_after_them(
    trained: list[list[int]], asked: list[list[int]], k: int
) -> None:
    training, histories = (
        from_lists([np.array(items, np.int32) for items in lists], ITEMS) for lists in (trained, asked)
    )
    counts = [sum(items.count(item) for items in trained) for item in range(ITEMS)]
    popular = sorted(range(ITEMS), key=lambda item: (-counts[item], item))
    for lists, by_count in ((often_taken_lists, True), (lately_taken_lists, False)):
        found = lists(training, histories, k, masked=False)
        masked = lists(training, histories, k, masked=True)
        for user, items in enumerate(asked):
            latest = list(dict.fromkeys(reversed(items)))
            own = sorted(latest, key=lambda item: -items.count(item)) if by_count else latest
            rest = [item for item in popular if item not in own]
            assert [item for item in found.items_UK[user].tolist() if item >= 0] == (own + rest)[:k]
            assert [item for item in masked.items_UK[user].tolist() if item >= 0] == rest[:k]
        assert (np.diff(np.nan_to_num(found.scores_UK, neginf=-99)) <= 0).all()
        assert ((found.items_UK >= 0) == np.isfinite(found.scores_UK)).all()


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_taken_again_is_measured_apart_where_it_may_be_recommended(masked: bool) -> None:
    dataset = preprocess(DataConfig(demo={"users": 400, "items": 80, "repeats": 0.5}))
    again = dataset.sequences.taken_before(Split.TEST)
    assert 0.4 < again.mean() < 0.6
    config = EvaluateConfig(mask_history=masked, bootstrap_samples=100)
    found = evaluate(EvaluationInputs(config, dataset, {})).metrics
    assert set(found["test"]) == {"popularity"} | (set() if masked else {"often_taken", "lately_taken"})
    assert ("repeats" in found["slices"]) is not masked
    if not masked:
        repeated, new = found["slices"]["repeats"]
        assert (repeated["group"], repeated["users"], new["users"]) == ("taken before", again.sum(), (~again).sum())
        assert repeated["recall"]["often_taken"] > 0.9
        assert new["recall"]["often_taken"] < 0.3
