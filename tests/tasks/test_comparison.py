"""What a comparison counts: the numbers that recommending needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prorec.tasks import comparison
from prorec_core.data.sequences import from_lists
from prorec_core.generation.ranker_net import Examples
from prorec_core.generation.relations import Relations
from prorec_core.generation.trained import ranker_tensors
from prorec_core.training.checkpoint import save_tensors


def test_a_network_counts_once_and_not_for_each_of_its_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    examples = Examples.of(features, np.ones((4, 3), bool), np.zeros(4, np.int64))
    alone = examples.train(np.ones(5), np.arange(4), 0)
    relations = Relations.of(from_lists([np.array([0, 1], np.int32)], 3), np.eye(3, dtype=np.float32))
    monkeypatch.setattr(comparison, "read_quantized", lambda *_: np.zeros((3, 2)))
    monkeypatch.setattr(comparison, "_embedding", lambda _: "integrated")

    def counted(network: object, *, with_ranker: bool) -> int:
        tensors = {"head": torch.zeros(7), **ranker_tensors(relations, network)}  # type: ignore[arg-type]
        save_tensors(tmp_path / "model.safetensors", tensors)
        return comparison._parameters({"train_generator": tmp_path}, with_ranker=with_ranker)

    weights_alone = counted(None, with_ranker=True)
    assert counted(alone.stacked([alone] * 6), with_ranker=True) == weights_alone + alone.numbers
    assert counted(alone.stacked([alone] * 6), with_ranker=False) == counted(None, with_ranker=False) == 7 + 6
