"""DIN: attention of a candidate item over a history (Zhou et al., 2018), made to score a whole catalogue.

Knows item vectors; knows nothing of where they come from. The user's vector for candidate t is `Σ_h a(h, t) h`
over the history, with DIN's activation unit a(h, t) on (h, t, h ⊙ t) and no softmax over the history, and the
score is its inner product with t. So the score is a sum over the history of one number a pair,
`Σ_h a(h, t) ⟨h, t⟩`: a running sum gives it after every position in one pass, and pairs of equal items are
computed once. Axes: B users, L positions, N items, D dimensions, U distinct items of history, C candidates,
A units, P targets.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import CollaborativeConfig
from prorec_core.sequential.base import SequentialModel
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.losses import sampled_cross_entropy

_PAIRS_A_CHUNK = 500_000


class DIN(SequentialModel):
    """Target attention over a history; always trained with a sampled softmax when pairs would be too many.

    Catalogues up to `min(full_softmax_items, negatives)` are scored whole in training: DIN's cost is one small
    network a pair of history item and candidate, not one product.
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

    def _vectors(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.score == "cosine" else vectors

    def _pairs(self, history_UD: Tensor, candidates_CD: Tensor) -> Tensor:
        """a(h, t) ⟨h, t⟩ of every pair, shape (U, C)."""
        units, dim = self.from_product.shape
        weighted = (history_UD[:, None, :] * self.from_product).reshape(-1, dim)
        if self.low_precision:
            product = (weighted.bfloat16() @ candidates_CD.t().bfloat16()).float()
        else:
            product = weighted @ candidates_CD.t()
        hidden_UAC = product.view(-1, units, len(candidates_CD))
        hidden_UAC = hidden_UAC + self.from_history(history_UD)[:, :, None] + self.from_candidate(candidates_CD).t()
        active = torch.where(hidden_UAC > 0, hidden_UAC, hidden_UAC * self.slope[:, None])
        attention_UC = torch.einsum("uac,a->uc", active, self.weigh.weight[0]) + self.weigh.bias
        return attention_UC * (history_UD @ candidates_CD.t())

    def _scale(self) -> float:
        return 1 / self.config.temperature if self.config.score == "cosine" else 1.0

    def training_loss(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        assert batch.targets_BL is not None
        n_items, device = len(table_ND), table_ND.device
        real = batch.targets_BL >= 0
        targets_P = batch.targets_BL[real]
        whole = n_items <= min(self.config.full_softmax_items, self.config.negatives)
        if whole:
            candidates_C, place_P = torch.arange(n_items, device=device), targets_P
        else:
            wanted, place_P = torch.unique(targets_P, return_inverse=True)
            drawn = torch.randint(n_items, (self.config.negatives,), device=device)
            candidates_C = torch.cat([wanted, drawn])
        distinct_U, index = torch.unique(batch.items_BL, return_inverse=True)
        history_UD = self.dropout(self._vectors(F.embedding(distinct_U, table_ND)))
        pairs_UC = self._pairs(history_UD, self._vectors(F.embedding(candidates_C, table_ND)))
        weights_BL1 = batch.is_item_BL[:, :, None].float()
        logits_PC = (F.embedding(index, pairs_UC) * weights_BL1).cumsum(1)[real] * self._scale()
        if whole:
            return F.cross_entropy(logits_PC, place_P)
        correct_P = logits_PC.gather(1, place_P[:, None])[:, 0]
        count = self.config.negatives
        same = targets_P[:, None] == candidates_C[-count:]
        return sampled_cross_entropy(correct_P, logits_PC[:, -count:], same, n_items)

    def scores(self, table_ND: Tensor, batch: HistoryBatch) -> Tensor:
        distinct_U, index = torch.unique(batch.items_BL, return_inverse=True)
        weights_BU = torch.zeros(len(index), len(distinct_U), device=table_ND.device)
        weights_BU.scatter_add_(1, index, batch.is_item_BL.float())
        vectors_ND = self._vectors(table_ND.float())
        history_UD = F.embedding(distinct_U, vectors_ND)
        columns = max(1, _PAIRS_A_CHUNK // max(len(distinct_U), 1))
        parts = [weights_BU @ self._pairs(history_UD, part_CD) for part_CD in vectors_ND.split(columns)]
        return torch.cat(parts, 1) * self._scale()
