"""Several trainings that vote: whose items are looked at, what a mean of probabilities is, that each is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import voting
from prorec_core.config import Experiment
from tests.tiny import tiny


def test_items_are_looked_at_once_whoever_found_them() -> None:
    first, second = np.array([[3, 1, -1], [5, -1, -1]], np.int32), np.array([[1, 2], [-1, -1]], np.int32)
    assert voting.union([first, second]).tolist() == [[1, 2, 3], [5, -1, -1]]


def test_probabilities_are_averaged() -> None:
    mean = voting.mean_of([np.log(np.array([0.5, 0.2], np.float32)), np.log(np.array([0.1, 0.2], np.float32))])
    assert np.exp(mean) == pytest.approx([0.3, 0.2])
    with np.errstate(divide="ignore"):
        nothing = np.log(np.zeros(1, np.float32))
    assert voting.mean_of([nothing, nothing])[0] == -np.inf


def test_each_is_measured_by_itself_and_all_together(tmp_path: Path) -> None:
    experiment = Experiment.model_validate(tiny({"generator.dense": "stage_one"}))
    folders = voting.trained(experiment, 2, tmp_path)
    rows = voting.vote(folders, [0.5, 2.0], 10)
    assert [row["who"] for row in rows] == [[0], [1], [0, 1]]
    for row in rows:
        assert row["weight"] in {0.5, 2.0}
        for name in voting.SCORES:
            figures = row[name]
            assert 0 <= figures["ndcg_at_10"] <= figures["recall_at_10"] <= 1 and 0 <= figures["validation"] <= 1
    same = voting.vote([folders[0], folders[0]], [0.5, 2.0], 10)
    assert {**same[0], "who": ""} == {**same[2], "who": ""}, "who votes with itself says nothing new"
    assert voting.trained(experiment, 2, tmp_path) == folders
