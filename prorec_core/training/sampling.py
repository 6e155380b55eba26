"""The items that a step meets: those of its batch, and a sample that stands for all others.

Knows items by their index; knows nothing of models. Axes: B users, L positions, N items, R rows of a step's own small
table, P positions, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.training.batching import NO_TARGET, HistoryBatch

_STEP = 256


@dataclass(frozen=True)
class MetItems:
    """A part of the catalogue that stands for all of it.

    Sums over the catalogue are estimated by sums over its rows, each times its weight: 1 for the batch's own items,
    which are all there, and (N − own) / sampled for those drawn uniformly from the rest. So each estimate is unbiased
    (a stratified sample, the first stratum taken whole); its logarithm is not, and the bias of a softmax's gradient
    falls as the sample grows (Bengio and Senécal, 2008). With a sample of all the rest both are exact.

    Attributes:
        items_R: each item once: the batch's own, ascending, then the sampled ones, ascending; int64. Where shapes are
            fixed, the last of either part again up to its end, with a weight of nothing.
        own: rows of the batch's own.
        log_weights_R: logarithm of each row's weight, float32.
        sampled: where shapes are fixed, how many of the sampled rows count, int64, shape (1,); None: all.
    """

    items_R: Tensor
    own: int
    log_weights_R: Tensor
    sampled: Tensor | None = None

    @property
    def fixed(self) -> bool:
        """Whether shapes are fixed, so that an item may stand in several rows."""
        return self.sampled is not None

    def rows_of(self, items: Tensor) -> Tensor:
        """The rows of some of the batch's own items, int64, of the same shape."""
        return torch.searchsorted(self.items_R[: self.own], items)

    def draw(self, like: Tensor) -> Tensor:
        """Rows at random, each as likely as any other, int64, of a tensor's shape.

        Of the sampled ones, or where nothing was sampled of all.
        """
        first, rows = (self.own if self.own < len(self.items_R) else 0), len(self.items_R)
        if self.sampled is None:
            return torch.randint(first, rows, like.shape, device=like.device)
        return first + (torch.rand(like.shape, device=like.device) * self.sampled).long()


def padded_unique(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct values, as `torch.unique` has them, in a shape that does not depend on how many there are.

    Args:
        values: int64, any shape, M of them.

    Returns:
        Each value once, ascending, then the last of them again, shape (M,); for each value its place among these, of
        the shape of `values`; how many differ, shape (1,). All int64.
    """
    sorted_M, order_M = values.flatten().sort(stable=True)
    places_M = F.pad((sorted_M[1:] != sorted_M[:-1]).cumsum(0), (1, 0))
    unique_M = sorted_M[-1:].expand_as(sorted_M).scatter(0, places_M, sorted_M)
    inverse_M = torch.zeros_like(order_M).scatter(0, order_M, places_M)
    return unique_M, inverse_M.view(values.shape), places_M[-1:] + 1


def met_items(own: Tensor, n_items: int, sample: int, *, fixed: bool = False) -> MetItems:
    """The items of a batch and a sample of all others.

    Args:
        own: the batch's items, int64, any shape, each as often as it comes.
        n_items: size N of the catalogue.
        sample: items drawn; equal ones count once. From N less the batch's own on all others are taken; where shapes
            are fixed, from N on.
        fixed: no shape may depend on which items they are.
    """
    if fixed:
        return _met_items_of_fixed_shape(own, n_items, sample)
    own_U = torch.unique(own)
    others = n_items - len(own_U)
    if sample >= others:
        places_S = torch.arange(others, device=own.device)
    else:
        places_S = torch.unique(torch.randint(others, (sample,), device=own.device))
    # Places among the items that are not the batch's own, in the order of the catalogue.
    skipped_S = torch.searchsorted(own_U - torch.arange(len(own_U), device=own.device), places_S, right=True)
    log_weights_R = torch.zeros(len(own_U) + len(places_S), device=own.device)
    if len(places_S):
        log_weights_R[len(own_U) :] = torch.tensor(others / len(places_S)).log()
    return MetItems(torch.cat([own_U, places_S + skipped_S]), len(own_U), log_weights_R)


def _met_items_of_fixed_shape(own: Tensor, n_items: int, sample: int) -> MetItems:
    own_U, _, count = padded_unique(own)
    row_U, others = torch.arange(len(own_U), device=own.device), n_items - count
    if sample >= n_items:
        places_S, sampled = torch.arange(n_items, device=own.device).minimum(others - 1), others
    else:
        # In float64: float32 cannot tell the items of a large catalogue apart.
        drawn_S = torch.rand(sample, device=own.device, dtype=torch.float64) * others
        places_S, _, sampled = padded_unique(drawn_S.long())
    # What is there a second time must not be skipped twice.
    gaps_U = own_U.where(row_U < count, n_items + row_U) - row_U
    items_S = (places_S + torch.searchsorted(gaps_U, places_S, right=True)).clamp(0, n_items - 1)
    weight = (others / sampled).log().float()
    row_S = torch.arange(len(places_S), device=own.device)
    log_weights_R = torch.cat([torch.zeros_like(weight).expand(len(own_U)), weight.expand(len(places_S))])
    counts_R = torch.cat([row_U < count, row_S < sampled])
    return MetItems(torch.cat([own_U, items_S]), len(own_U), log_weights_R.masked_fill(~counts_R, -torch.inf), sampled)


def met_in(batch: HistoryBatch, n_items: int, sample: int) -> tuple[MetItems, HistoryBatch]:
    """What a training batch meets, and the batch with rows instead of items."""
    assert batch.targets_BL is not None
    wanted_BL = batch.targets_BL.clamp(min=0)
    met = met_items(torch.stack([batch.items_BL, wanted_BL]), n_items, sample, fixed=batch.fixed)
    targets_BL = met.rows_of(wanted_BL).masked_fill(batch.targets_BL < 0, -1)
    return met, replace(batch, items_BL=met.rows_of(batch.items_BL), targets_BL=targets_BL)


def multiple(count: int) -> int:
    """The next multiple of a step: rows are padded to it where every batch would have another number of them.

    For the products of each new shape oneDNN makes a program, and keeps it with some MiB for a thousand shapes.
    """
    return -(-count // _STEP) * _STEP


def met_cross_entropy(states_PD: Tensor, table_RD: Tensor, rows_P: Tensor, scale: float, met: MetItems) -> Tensor:
    """Mean cross-entropy of `softmax(scale · states · tableᵀ)` at the targets, the catalogue as `met` has it.

    Args:
        states_PD: floating point.
        table_RD: the vectors of the met items.
        rows_P: rows of the targets, int64, -100 where there is none.
        scale: factor of the scores, one over the temperature.
        met: what the rows of the table stand for.
    """
    missing_P, missing_R = (multiple(len(each)) - len(each) for each in (states_PD, table_RD))
    states_PD, table_RD = F.pad(states_PD, (0, 0, 0, missing_P)), F.pad(table_RD, (0, 0, 0, missing_R))
    log_weights_R = F.pad(met.log_weights_R, (0, missing_R), value=-torch.inf)
    logits_PR = (states_PD * scale).to(table_RD.dtype) @ table_RD.t()
    return F.cross_entropy(logits_PR.float() + log_weights_R, F.pad(rows_P, (0, missing_P), value=NO_TARGET))
