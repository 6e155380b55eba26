"""A new implementation is its module and an entry in a registry: no other line changes, and keys follow it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from prorec.tasks.execution import sources
from prorec.tasks.stages.pipeline import STAGES
from prorec_core.config import Experiment, QuantizeConfig
from prorec_core.data.sequences import Sequences
from prorec_core.quantization.quantized import Quantized
from prorec_core.quantization.stage import fitted_quantizer, quantize
from prorec_core.registry import QUANTIZERS, SEQUENTIAL_MODELS
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.trained import CollaborativeModel
from prorec_core.stages.inputs import QUANTIZED
from prorec_core.training.runtime import Runtime


def test_a_new_quantizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="'residual_kmeans'"):
        Experiment.model_validate({"quantize": {"method": "signs"}})
    monkeypatch.setitem(QUANTIZERS.places, "signs", "tests.toys:Signs")
    experiment = Experiment.model_validate({"quantize": {"method": "signs", "levels": 3, "codes": 2}})
    embeddings = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    quantize(experiment.quantize, embeddings, [str(item) for item in range(40)], 0).save(tmp_path)
    found = Quantized.load(tmp_path)
    assert len(np.unique(found.table.codes, axis=0)) == 40 and found.quality["method"] == "signs"
    assert np.array_equal(fitted_quantizer(found).encode(embeddings), found.table.codes[:, :3])
    files = {path.name for path in sources.source_files((STAGES["quantize"].module,), experiment)}
    assert "toys.py" in files and "residual_kmeans.py" not in files


def test_every_embedding_that_can_be_chosen_is_read_from_somewhere() -> None:
    assert set(QUANTIZED) == set(get_args(QuantizeConfig.model_fields["embedding"].annotation))
    assert {stage for stages in QUANTIZED.values() for stage in stages} <= set(STAGES["train_generator"].reads)


def test_a_new_sequential_model(monkeypatch: pytest.MonkeyPatch, checkerboard: Sequences, tmp_path: Path) -> None:
    monkeypatch.setitem(SEQUENTIAL_MODELS.places, "last_item", "tests.toys:LastItem")
    given = {"model": "last_item", "dim": 8, "epochs": 1, "precision": "float32"}
    config = Experiment.model_validate({"collaborative": given}).collaborative
    train_collaborative(config, checkerboard, 0, Runtime(torch.device("cpu"))).save(tmp_path)
    model, table = CollaborativeModel.load(tmp_path).sequential_model(torch.device("cpu"))
    assert type(model).__name__ == "LastItem" and table.shape == (checkerboard.n_items, 8)
    experiment = Experiment.model_validate({"collaborative": given})
    for stage in ("train_collaborative", "align", "train_generator", "evaluate"):
        files = {path.name for path in sources.source_files((STAGES[stage].module,), experiment)}
        assert "toys.py" in files and not files & {"sasrec.py", "din.py"}, stage
