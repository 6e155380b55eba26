"""The graph of items that stand beside each other in histories, and the smoothing of item vectors over it.

Knows sequences; knows nothing of text or models. Axes: N items, D dimensions, T ties.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from prorec_core.data.sequences import Sequences


class ItemGraph(nn.Module):
    """Adds to each item's vector those of its neighbours: `v + weight · D^(-1/2) A D^(-1/2) v`.

    A_ij counts how often items i and j stand next to each other in a training history, in either order; no item is
    its own neighbour, and one without neighbours keeps its vector. One layer of a graph convolution without weights
    (He et al., 2020).
    """

    def __init__(self, training: Sequences, weight: float) -> None:
        """
        Args:
            training: users' items without those held back.
            weight: of the neighbours.
        """
        super().__init__()
        self.weight = weight
        ties = _ties(training)
        self.offsets: Tensor
        self.items_T: Tensor
        self.strengths_T: Tensor
        self.register_buffer("offsets", torch.from_numpy(ties.indptr.astype(np.int64)), persistent=False)
        self.register_buffer("items_T", torch.from_numpy(ties.indices.astype(np.int64)), persistent=False)
        self.register_buffer("strengths_T", torch.from_numpy(ties.data.astype(np.float32)), persistent=False)

    def forward(self, vectors_ND: Tensor) -> Tensor:
        """Smoothed vectors, float32, shape (N, D)."""
        vectors_ND = vectors_ND.float()
        added_ND: Tensor = _SumOfNeighbours.apply(vectors_ND, self.items_T, self.offsets, self.strengths_T)
        return vectors_ND + self.weight * added_ND


def _ties(training: Sequences) -> sparse.csr_matrix:
    user = np.repeat(np.arange(training.n_users), np.diff(training.offsets))
    together = user[1:] == user[:-1]
    first, second = training.items[:-1][together], training.items[1:][together]
    counts = sparse.coo_matrix((np.ones(len(first)), (first, second)), (training.n_items,) * 2).tocsr()
    counts = counts + counts.T
    counts.setdiag(0)
    counts.eliminate_zeros()
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(counts.sum(1)).ravel(), 1)))
    ties = (scale @ counts @ scale).tocsr()
    ties.sort_indices()
    return ties


class _SumOfNeighbours(torch.autograd.Function):
    """A symmetric sparse matrix times vectors; its gradient is the same product."""

    @staticmethod
    def forward(ctx: Any, vectors_ND: Tensor, items_T: Tensor, offsets: Tensor, strengths_T: Tensor) -> Tensor:
        ctx.save_for_backward(items_T, offsets, strengths_T)
        return _sums(vectors_ND, items_T, offsets, strengths_T)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _sums(upstream[0].float().contiguous(), *ctx.saved_tensors), None, None, None


def _sums(vectors_ND: Tensor, items_T: Tensor, offsets: Tensor, strengths_T: Tensor) -> Tensor:
    return F.embedding_bag(
        items_T, vectors_ND, offsets, mode="sum", per_sample_weights=strengths_T, include_last_offset=True
    )
