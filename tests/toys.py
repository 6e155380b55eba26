"""Implementations as small as they can be, for tests that add one to a registry and change nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import CollaborativeConfig, QuantizeConfig, Training
from prorec_core.progress import Report, silent
from prorec_core.quantization.quantizer import Codes, Floats, Quantizer, State
from prorec_core.sequential.base import Products, SequentialModel
from prorec_core.training.batching import HistoryBatch


class Signs(Quantizer):
    """A level a dimension: 1 where the embedding is above the mean of all, else 0."""

    def __init__(self, means_D: Floats, levels: int) -> None:
        self.means_D, self.levels = means_D, levels

    @classmethod
    def fit(
        cls, embeddings_ND: Floats, config: QuantizeConfig, seed: int, report: Report = silent
    ) -> tuple[Self, Codes]:
        fitted = cls(embeddings_ND.mean(axis=0), config.levels)
        return fitted, fitted.encode(embeddings_ND)

    def encode(self, embeddings_ND: Floats) -> Codes:
        return (embeddings_ND > self.means_D)[:, : self.levels].astype(np.uint16)

    def decode(self, codes_Nl: Codes) -> Floats:
        found = np.tile(self.means_D, (len(codes_Nl), 1))
        found[:, : codes_Nl.shape[1]] += codes_Nl - np.float32(0.5)
        return found

    def state(self) -> State:
        return {"means": self.means_D, "levels": np.array([self.levels])}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(state["means"], int(state["levels"][0]))


class LastItem(SequentialModel):
    """What is next is what is like the latest item."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    @classmethod
    def build(cls, config: CollaborativeConfig, training: Training, table_dim: int, low_precision: bool) -> Self:
        return cls()

    def _states(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        return F.embedding(batch.items_BL, table_ND) * self.scale

    def training_loss(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        assert batch.targets_BL is not None
        real = batch.targets_BL >= 0
        return F.cross_entropy(self._states(table_ND, batch)[real] @ table_ND.t(), batch.targets_BL[real])

    def scores(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        return batch.last(self._states(table_ND, batch)) @ table_ND.t()

    def products(self, table_ND: Tensor) -> Products:
        return Products(table_ND, lambda batch, rows, columns: self._states(table_ND, batch)[rows, columns], math.inf)
