"""DIN: attention of a candidate item over a history (Zhou et al., 2018), made to score a whole catalogue.

Knows item vectors; knows nothing of where they come from. The user's vector for candidate t is `Σ_h a(h, t) h`
over the history, with DIN's activation unit a(h, t) on (h, t, h ⊙ t) and no softmax over the history, and the
score is its inner product with t. So the score is a sum over the history of one number a pair,
`Σ_h a(h, t) ⟨h, t⟩`: a running sum gives it after every position in one pass, and pairs of equal items are
computed once, for a ranking of all users even once for all of them. Axes: B users, L positions, N items,
D dimensions, U distinct items of history, C candidates, A units, P targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import CollaborativeConfig, Training
from prorec_core.sequential.base import SequentialModel
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.losses import sampled_cross_entropy
from prorec_core.training.sampling import MetItems, padded_unique

_BLOCK = {"cpu": (16, 512)}
"""History items and candidates whose pairs are scored at a time: their hidden units stay in a processor's cache."""
_LARGE_BLOCK = 256, 8192
"""The same on other devices."""
_PAIRS_KEPT = 300_000_000
"""Pairs of items whose numbers `scorer` keeps, float32: 1.2 GB, a catalogue of 17,000 items."""


class DIN(SequentialModel):
    """Target attention over a history; always trained with a sampled softmax when pairs would be too many.

    Catalogues up to `negatives` items are scored whole in training: DIN's cost is one small network a pair of history
    item and candidate, not one product.
    """

    def __init__(self, config: CollaborativeConfig, table_dim: int, dropout: float, low_precision: bool) -> None:
        super().__init__()
        units = config.attention_units
        self.config = config
        self.low_precision = low_precision
        self.from_history = nn.Linear(table_dim, units)
        self.from_candidate = nn.Linear(table_dim, units, bias=False)
        self.from_product = nn.Parameter(torch.randn(units, table_dim) / math.sqrt(table_dim))
        self.slope = nn.Parameter(torch.full((units,), 0.25))
        self.weigh = nn.Linear(units, 1)
        nn.init.ones_(self.weigh.bias)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def build(cls, config: CollaborativeConfig, training: Training, table_dim: int, low_precision: bool) -> Self:
        return cls(config, table_dim, training.dropout, low_precision)

    def _vectors(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.score == "cosine" else vectors

    def _pairs(self, history_UD: Tensor, candidates_CD: Tensor) -> Tensor:
        """a(h, t) ⟨h, t⟩ of every pair, shape (…, U, C); leading axes of both are batches."""
        weighted = (history_UD[..., None, :] * self.from_product).flatten(-3, -2)
        if self.low_precision:
            product = (weighted.bfloat16() @ candidates_CD.mT.bfloat16()).float()
        else:
            product = weighted @ candidates_CD.mT
        hidden_UAC = product.unflatten(-2, (-1, len(self.from_product)))
        hidden_UAC = hidden_UAC + self.from_history(history_UD)[..., None]
        hidden_UAC = hidden_UAC + self.from_candidate(candidates_CD).mT[..., None, :, :]
        # PReLU as slope · x + (1 − slope) · max(x, 0): two products instead of a choice for every number.
        straight = self.weigh.weight[0] * self.slope
        attention_UC = straight @ hidden_UAC + (self.weigh.weight[0] - straight) @ F.relu(hidden_UAC)
        pairs_UC: Tensor = (attention_UC + self.weigh.bias) * (history_UD @ candidates_CD.mT)
        return pairs_UC

    @torch.no_grad()
    def _all_pairs(self, history_UD: Tensor, candidates_CD: Tensor) -> Tensor:
        """`_pairs` without gradients, block by block."""
        pairs_UC = history_UD.new_empty(len(history_UD), len(candidates_CD))
        height, width = _BLOCK.get(history_UD.device.type, _LARGE_BLOCK)
        for row in range(0, len(history_UD), height):
            for column in range(0, len(candidates_CD), width):
                rows, columns = slice(row, row + height), slice(column, column + width)
                pairs_UC[rows, columns] = self._pairs(history_UD[rows], candidates_CD[columns])
        return pairs_UC

    def _scale(self) -> float:
        return 1 / self.config.temperature if self.config.score == "cosine" else 1.0

    def training_loss(self, table_ND: Tensor, batch: HistoryBatch, met: MetItems | None = None) -> Tensor:
        assert batch.targets_BL is not None
        n_items, device = len(table_ND), table_ND.device
        targets = batch.targets()
        whole = met is not None or n_items <= self.config.negatives
        candidates_C = (
            torch.arange(n_items, device=device)
            if whole
            else torch.randint(n_items, (self.config.negatives,), device=device)
        )
        if batch.fixed:
            distinct_U, index, _ = padded_unique(batch.items_BL)
        else:
            distinct_U, index = torch.unique(batch.items_BL, return_inverse=True)
        history_UD = self.dropout(self._vectors(F.embedding(distinct_U, table_ND)))
        pairs_UC = self._pairs(history_UD, self._vectors(F.embedding(candidates_C, table_ND)))
        weights_BL1 = batch.is_item_BL[:, :, None].float()
        logits_PC = targets.of((F.embedding(index, pairs_UC) * weights_BL1).cumsum(1)) * self._scale()
        if whole:
            labels_P = targets.labels(targets.items_P)
            return F.cross_entropy(logits_PC if met is None else logits_PC + met.log_weights_R, labels_P)
        # A target is scored for its own user alone: axis T is the positions of the targets.
        own_BTD = self._vectors(F.embedding(batch.targets_BL.clamp(min=0), table_ND))
        own_BLT = self._pairs(F.embedding(index, history_UD), own_BTD) * weights_BL1
        correct_P = targets.of(own_BLT.cumsum(1).diagonal(dim1=1, dim2=2)) * self._scale()
        same_PC = targets.items_P[:, None] == candidates_C
        return sampled_cross_entropy(correct_P, logits_PC, same_PC, n_items, targets.real_P)

    def scores(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        distinct_U, index = torch.unique(batch.items_BL, return_inverse=True)
        weights_BU = torch.zeros(len(index), len(distinct_U), device=table_ND.device)
        weights_BU.scatter_add_(1, index, batch.is_item_BL.float())
        vectors_ND = self._vectors(table_ND.float())
        return weights_BU @ self._all_pairs(F.embedding(distinct_U, vectors_ND), vectors_ND) * self._scale()

    def scorer(self, table_ND: Tensor) -> Callable[[HistoryBatch], Tensor]:
        if len(table_ND) ** 2 > _PAIRS_KEPT:
            return super().scorer(table_ND)
        vectors_ND = self._vectors(table_ND.float())
        pairs_NN = self._all_pairs(vectors_ND, vectors_ND).mul_(self._scale())

        def scores(batch: HistoryBatch) -> Tensor:
            counts_BL = batch.is_item_BL.float()
            return F.embedding_bag(batch.items_BL, pairs_NN, mode="sum", per_sample_weights=counts_BL)

        return scores
