"""SASRec: self-attention over a history (Kang and McAuley, 2018), trained with cross-entropy over the catalogue.

As published, with binary cross-entropy and one sampled negative a position, where the configuration says so.
Knows item vectors; knows nothing of where they come from. Axes: B users, L positions, N items, D dimensions,
P targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import CollaborativeConfig, Training
from prorec_core.sequential.base import ItemSoftmax, Products, SequentialModel
from prorec_core.sequential.transformer import CausalTransformer
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.sampling import MetItems


class SASRec(SequentialModel):
    """A causal transformer over item vectors; a position's state is compared with the vectors of all items.

    Item vectors wider than the model (fused by concatenation) pass a linear layer on the way in and out.
    """

    def __init__(
        self,
        config: CollaborativeConfig,
        table_dim: int,
        max_history: int,
        dropout: float,
        low_precision: bool,
    ) -> None:
        super().__init__()
        self.transformer = CausalTransformer(config.dim, config.layers, config.heads, max_history, dropout)
        same = table_dim == config.dim
        self.inputs: nn.Module = nn.Identity() if same else nn.Linear(table_dim, config.dim)
        self.outputs: nn.Module = nn.Identity() if same else nn.Linear(config.dim, table_dim)
        self.softmax = ItemSoftmax(config, low_precision)

    @classmethod
    def build(cls, config: CollaborativeConfig, training: Training, table_dim: int, low_precision: bool) -> Self:
        return cls(config, table_dim, training.max_history, training.dropout, low_precision)

    def states(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        """The state after each position in the space of the item vectors, shape (B, L, D)."""
        vectors_BLD = self.softmax.as_input(F.embedding(batch.items_BL, table_ND))
        states: Tensor = self.outputs(self.transformer(self.inputs(vectors_BLD)))
        return states

    def training_loss(self, table_ND: Tensor, batch: HistoryBatch, met: MetItems | None = None) -> Tensor:
        targets = batch.targets()
        states_PD, targets_P = targets.of(self.states(table_ND, batch)), targets.items_P
        if self.softmax.config.loss == "binary_cross_entropy":
            assert batch.targets_BL is not None
            drawn_P = (
                torch.randint(len(table_ND), targets_P.shape, device=targets_P.device)
                if met is None
                else met.draw(targets_P)
            )
            sequence_BL = torch.cat([batch.items_BL.masked_fill(~batch.is_item_BL, -1), batch.targets_BL], 1)
            owned_P = (sequence_BL[targets.rows_P] == drawn_P[:, None]).any(1)
            return self.softmax.binary(states_PD, table_ND, targets, drawn_P, ~owned_P)
        loss: Tensor = self.softmax(states_PD, table_ND, targets, met)
        return loss

    def scores(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        return self.scorer(table_ND)(batch)

    def scorer(self, table_ND: Tensor) -> Callable[[HistoryBatch], Tensor]:
        scores = self.softmax.scorer(table_ND)
        return lambda batch: scores(batch.last(self.states(table_ND, batch)))

    def directions(self, table_ND: Tensor) -> Callable[[HistoryBatch, Tensor, Tensor], Tensor]:
        return lambda batch, rows_P, columns_P: self.states(table_ND, batch)[rows_P, columns_P]

    def products(self, table_ND: Tensor) -> Products:
        softmax, states = self.softmax, self.directions(table_ND)

        def queries(batch: HistoryBatch, rows_P: Tensor, columns_P: Tensor) -> Tensor:
            return softmax.compared(states(batch, rows_P, columns_P).float()) * softmax.scale

        return Products(softmax.compared(table_ND), queries, softmax.scale if softmax.cosine else math.inf)

    def copy_into(self, encoder: nn.Module, inputs: nn.Module, outputs: Iterable[nn.Module]) -> bool:
        same = isinstance(encoder, CausalTransformer) and encoder.shape == self.transformer.shape
        if not same or not self.softmax.cosine:
            return False
        encoder.load_state_dict(self.transformer.state_dict())
        for layer, own in [(inputs, self.inputs), *((each, self.outputs) for each in outputs)]:
            layer.load_state_dict(own.state_dict() or _identity(layer))
        return True


def _identity(layer: nn.Module) -> dict[str, Tensor]:
    """Weights with which a linear layer leaves all as it is."""
    return {
        name: torch.eye(len(tensor)) if tensor.ndim > 1 else torch.zeros_like(tensor)
        for name, tensor in layer.state_dict().items()
    }
