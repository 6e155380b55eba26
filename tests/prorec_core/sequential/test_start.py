"""Going on from an earlier training: items by their ids, weights that fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prorec_core.config import CollaborativeConfig, ContinuingConfig
from prorec_core.data.sequences import Sequences, from_lists
from prorec_core.errors import UserError
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.start import Start, carried
from prorec_core.training.runtime import Runtime

CPU = Runtime(torch.device("cpu"))
SMALL = CollaborativeConfig(dim=8, layers=1, epochs=2, tokens_per_batch=128, precision="float32", max_history=10)


def test_known_items_keep_their_vectors_and_new_ones_stand_with_their_neighbours() -> None:
    before = np.array([[3, 0], [0, 3], [-3, 0]], np.float32)
    training = from_lists([np.array([1, 3, 1, 4], np.int32), np.array([0, 2], np.int32)], 6)
    found = carried(before, np.array([1, 0, 2, -1, -1, -1]), training)
    np.testing.assert_array_equal(found[:3], before[[1, 0, 2]])
    # Item 3 stands twice beside item 1, item 4 once; nobody has taken item 5.
    np.testing.assert_allclose(found[3:5], [[3, 0], [3, 0]], atol=1e-6)
    np.testing.assert_allclose(found[5], [0, 3], atol=1e-6)
    assert carried(before, np.array([2, 1, 0]), from_lists([], 3)).tolist() == before[::-1].tolist()


def test_training_starts_where_the_other_ended(checkerboard: Sequences) -> None:
    base = train_collaborative(SMALL, checkerboard, 0, CPU)
    rows = np.arange(24)[::-1].copy()
    mirrored = replace(checkerboard, items=23 - checkerboard.items)
    still = SMALL.model_copy(update={"learning_rate": 1e-12, "epochs": 1})
    found = train_collaborative(still, mirrored, 5, CPU, start=Start(base, rows))
    np.testing.assert_allclose(found.embeddings, base.embeddings[rows], atol=1e-6)
    assert found.training[0]["validation_ndcg_at_10"] == max(each["validation_ndcg_at_10"] for each in base.training)


def test_another_shape_is_refused(checkerboard: Sequences) -> None:
    base = train_collaborative(SMALL, checkerboard, 0, CPU)
    for change in ({"dim": 16}, {"max_history": 12}, {"layers": 2}):
        with pytest.raises(UserError, match=r"start_from: the model .* is of another shape: .*collab"):
            config = SMALL.model_copy(update=change)
            train_collaborative(config, checkerboard, 0, CPU, start=Start(base, np.arange(24)))


def test_a_training_that_goes_on_is_shorter_and_slower() -> None:
    config = ContinuingConfig(epochs_share=0.3, rate_share=0.5).shortened(SMALL.model_copy(update={"epochs": 10}))
    assert (config.epochs, config.learning_rate) == (3, SMALL.learning_rate / 2)
    assert ContinuingConfig(epochs_share=0.01).shortened(SMALL).epochs == 1
