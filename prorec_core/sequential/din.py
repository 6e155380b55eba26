"""DIN: attention of a candidate item over a history (Zhou et al., 2018), made to score a whole catalogue.

Knows item vectors; knows nothing of where they come from. The user's vector for candidate t is `Σ_h a(h, t) h`
over the history, with DIN's activation unit a(h, t) on (h, t, h ⊙ t) and no softmax over the history, and the
score is its inner product with t. So the score is a sum over the history of one number a pair,
`Σ_h a(h, t) ⟨h, t⟩`: a running sum gives it after every position in one pass, and pairs of equal items are
computed once, for a ranking of all users even once for all of them. Axes: B users, L positions, N items,
D dimensions, U distinct items of history, C candidates, A units, V units of all U items, P targets, R rows kept.
"""

from __future__ import annotations

import math
import threading
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
"""Pairs of items whose numbers `scorer` keeps, float32: 1.2 GB, all of 17,000 items, 3,000 rows of 100,000 items."""


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
        """a(h, t) ⟨h, t⟩ of every pair, shape (…, U, C); leading axes of both are batches.

        A hidden unit is linear in the candidate: for each history item it is a product with one vector and a constant.
        So is the part of a PReLU that is straight, `slope · x`; what is left of it is `(1 − slope) · max(x, 0)`.
        """
        units_UAD = history_UD[..., None, :] * self.from_product + self.from_candidate.weight
        constants_UA = self.from_history(history_UD)
        units_VD = units_UAD.flatten(-3, -2)
        if self.low_precision:
            product_VC = (units_VD.bfloat16() @ candidates_CD.mT.bfloat16()).float()
        else:
            product_VC = units_VD @ candidates_CD.mT
        bent_UAC = F.relu(product_VC.unflatten(-2, (-1, len(self.slope))) + constants_UA[..., None])
        weights_A = self.weigh.weight[0]
        straight_A = weights_A * self.slope
        straight_UC = (straight_A @ units_UAD) @ candidates_CD.mT + (constants_UA @ straight_A)[..., None]
        attention_UC = (weights_A - straight_A) @ bent_UAC + straight_UC + self.weigh.bias
        pairs_UC: Tensor = attention_UC * (history_UD @ candidates_CD.mT)
        return pairs_UC

    @torch.no_grad()
    def _write_pairs(self, pairs_UC: Tensor, history_UD: Tensor, candidates_CD: Tensor) -> Tensor:
        """`_pairs`, scaled and without gradients, written block by block into what is given, and that."""
        height, width = _BLOCK.get(history_UD.device.type, _LARGE_BLOCK)
        for row in range(0, len(history_UD), height):
            for column in range(0, len(candidates_CD), width):
                rows, columns = slice(row, row + height), slice(column, column + width)
                pairs_UC[rows, columns] = self._pairs(history_UD[rows], candidates_CD[columns])
        return pairs_UC.mul_(self._scale())

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
        return self.scorer(table_ND)(batch)

    def scorer(self, table_ND: Tensor) -> Callable[[HistoryBatch], Tensor]:
        vectors_ND = self._vectors(table_ND.float())
        n_items, device = len(vectors_ND), vectors_ND.device
        # The items that are met first keep their pairs: mostly those that are met again. Unwritten rows take no memory.
        kept_RN = vectors_ND.new_empty(max(1, min(n_items, _PAIRS_KEPT // n_items)), n_items)
        kept_RN[0] = 0
        row_N = torch.full((n_items,), -1, device=device)
        taken, alone = 0, threading.Lock()

        def write(pairs_UN: Tensor, items_U: Tensor) -> Tensor:
            return self._write_pairs(pairs_UN, F.embedding(items_U, vectors_ND), vectors_ND)

        def scores(batch: HistoryBatch) -> Tensor:
            nonlocal taken
            met_U = batch.items_BL[batch.is_item_BL].unique()
            with alone:
                kept_U, other_U = met_U[row_N[met_U] < 0].tensor_split([len(kept_RN) - taken])
                write(kept_RN[taken : taken + len(kept_U)], kept_U)
                # Named once they are written: whoever finds them named reads them.
                row_N[kept_U] = torch.arange(taken, taken + len(kept_U), device=device)
                taken += len(kept_U)
            row_BL, counts_BL = row_N[batch.items_BL], batch.is_item_BL.float()
            found_BN = _sums(row_BL.clamp(min=0), kept_RN, counts_BL * (row_BL >= 0))
            if len(other_U):
                place_BL = torch.searchsorted(other_U, batch.items_BL).clamp(max=len(other_U) - 1)
                others_UN = write(vectors_ND.new_empty(len(other_U), n_items), other_U)
                found_BN += _sums(place_BL, others_UN, counts_BL * (row_BL < 0))
            return found_BN

        return scores


def _sums(row_BL: Tensor, table_RN: Tensor, counts_BL: Tensor) -> Tensor:
    return F.embedding_bag(row_BL, table_RN, mode="sum", per_sample_weights=counts_BL)
