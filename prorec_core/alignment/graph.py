"""The graph of items that stand beside each other in histories, and the smoothing of item vectors over it.

Knows sequences; knows nothing of text or models. Axes: N items, D dimensions, T ties, R some of the items, K neighbours
of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from prorec_core.data.sequences import Sequences

_A_STEP_FURTHER = 0.9


class ItemGraph(nn.Module):
    """Adds to each item's vector those of its neighbours: `v + weight · D^(-1/2) A D^(-1/2) v`.

    A_ij counts how often items i and j stand next to each other in a training history, in either order, or within
    `window` steps, each step further counting .9 of the one before; no item is its own neighbour, and one without
    neighbours keeps its vector. One layer of a graph convolution without weights
    (He et al., 2020).

    With `strongest`, of each item's neighbours those of the strongest ties alone are added, at the strength that they
    have among all: what an item is then takes a bounded number of others to tell.
    """

    def __init__(self, training: Sequences, weight: float, strongest: int | None = None, window: int = 1) -> None:
        """
        Args:
            training: users' items without those held back.
            weight: of the neighbours.
            strongest: neighbours an item at most, of equally strong ones those of lower index; None: all.
            window: steps that neighbours may stand apart in a history.
        """
        super().__init__()
        self.weight = weight
        self.whole = strongest is None
        ties = _ties(training, window)
        if strongest is not None:
            ties = _strongest(ties, strongest)
        self.most = int(np.diff(ties.indptr).max(initial=0))
        self.offsets: Tensor
        self.items_T: Tensor
        self.strengths_T: Tensor
        self.register_buffer("offsets", torch.from_numpy(ties.indptr.astype(np.int64)), persistent=False)
        self.register_buffer("items_T", torch.from_numpy(ties.indices.astype(np.int64)), persistent=False)
        self.register_buffer("strengths_T", torch.from_numpy(ties.data.astype(np.float32)), persistent=False)

    def forward(self, vectors_ND: Tensor) -> Tensor:
        """Smoothed vectors, float32, shape (N, D)."""
        vectors_ND = vectors_ND.float()
        sums = _SumOfNeighbours.apply if self.whole else _sums
        added_ND: Tensor = sums(vectors_ND, self.items_T, self.offsets, self.strengths_T)
        return vectors_ND + self.weight * added_ND

    def neighbours(self, items_R: Tensor, *, fixed: bool = False) -> tuple[Tensor, Tensor]:
        """The neighbours of some items and how strong each tie is, int64 and float32, shape (R, K).

        K is the largest number among these items, where shapes are fixed among all; where an item has fewer it stands
        itself, at strength 0.
        """
        starts_R = self.offsets[items_R]
        counts_R = self.offsets[items_R + 1] - starts_R
        columns = torch.arange(self.most if fixed else int(counts_R.max()), device=items_R.device)
        inside_RK = columns < counts_R[:, None]
        places_RK = torch.where(inside_RK, starts_R[:, None] + columns, 0)
        neighbours_RK = torch.where(inside_RK, self.items_T[places_RK], items_R[:, None])
        return neighbours_RK, self.strengths_T[places_RK] * inside_RK

    def smoothed(self, vectors_RD: Tensor, neighbours_RKD: Tensor, strengths_RK: Tensor) -> Tensor:
        """What `forward` makes of some items, from their vectors and those of their neighbours, float32."""
        added_RD = (neighbours_RKD.float() * strengths_RK[:, :, None]).sum(1)
        return vectors_RD.float() + self.weight * added_RD


def _ties(training: Sequences, window: int) -> sparse.csr_matrix:
    user = np.repeat(np.arange(training.n_users), np.diff(training.offsets))
    firsts, seconds, worths = [], [], []
    for step in range(1, max(min(window, int(np.diff(training.offsets).max(initial=1)) - 1), 1) + 1):
        together = user[step:] == user[:-step]
        firsts.append(training.items[:-step][together])
        seconds.append(training.items[step:][together])
        worths.append(np.full(len(firsts[-1]), _A_STEP_FURTHER ** (step - 1)))
    pairs = np.concatenate(firsts), np.concatenate(seconds)
    counts = sparse.coo_matrix((np.concatenate(worths), pairs), (training.n_items,) * 2).tocsr()
    counts = counts + counts.T
    counts.setdiag(0)
    counts.eliminate_zeros()
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(counts.sum(1)).ravel(), 1)))
    ties = (scale @ counts @ scale).tocsr()
    ties.sort_indices()
    return ties


def _strongest(ties: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    """Of each row the `count` largest entries, of equal ones the first."""
    rows = np.repeat(np.arange(ties.shape[0]), np.diff(ties.indptr))
    order = np.lexsort((-ties.data, rows))
    kept = np.sort(order[np.arange(len(rows)) - ties.indptr[rows] < count])
    offsets = np.concatenate([[0], np.minimum(np.diff(ties.indptr), count).cumsum()])
    return sparse.csr_matrix((ties.data[kept], ties.indices[kept], offsets), ties.shape)


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
