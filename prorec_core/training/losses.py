"""Cross-entropy over a whole catalogue or a sample of it, and InfoNCE.

Knows vectors and targets; knows nothing of what they stand for.
Axes: P positions, C positions of a chunk, N items, D dimensions, S sampled items.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.training.batching import NO_TARGET, at_a_time

_CHUNK = 512
"""Positions dealt with at a time; on a card 16 times as many."""
_BLOCK = 64
"""Items whose exponentials are summed in their own type before the sums are in float32."""
BOUND = 80
"""Logits under this may be exponentiated as they are: e^80 is far from float32's largest number."""


class _CatalogueCrossEntropy(torch.autograd.Function):
    """The softmax over all items without its logits: gradients are made in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        states_PD: Tensor,
        table_ND: Tensor,
        targets_P: Tensor,
        scale: float,
        bounded: bool,
        low: bool,
        real_P: Tensor | None,
    ) -> Tensor:
        kind = torch.bfloat16 if low else torch.float32
        states = states_PD.detach().to(kind)
        table = table_ND.detach().to(kind)
        grad_states = torch.empty_like(states_PD, dtype=torch.float32)
        grad_table = torch.zeros_like(table_ND, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = states_PD.new_zeros((), dtype=torch.float32)
        count: Tensor | int = max(len(states), 1) if real_P is None else real_P.sum().clamp(min=1)
        size = at_a_time(_CHUNK, states.device)
        for start in range(0, len(states), size):
            rows = slice(start, start + size)
            chunk, at_target = states[rows], (targets_P[rows], torch.arange(len(states[rows]), device=states.device))
            # A row an item: on CPUs all three products are faster than with a row a position.
            logits_NC = torch.mm(table, (chunk * scale).t())
            correct_C = logits_NC[at_target].float()
            if not bounded:
                largest_C = logits_NC.amax(0)
                logits_NC -= largest_C
                correct_C -= largest_C.float()
            logits_NC.exp_()
            mass_C = _column_sums(logits_NC)
            losses_C, share_C1 = mass_C.log() - correct_C, mass_C.reciprocal()[:, None]
            if real_P is not None:
                losses_C, share_C1 = losses_C * real_P[rows], share_C1 * real_P[rows, None]
            total += losses_C.sum()
            # The gradient times the mass, which is divided off the small sides of the products.
            logits_NC[at_target] -= mass_C.to(kind)
            grad_states[rows] = torch.mm(logits_NC.t(), table).float() * share_C1
            if grad_table is not None:
                grad_table += torch.mm(logits_NC, chunk * share_C1.to(kind)).float()
        factor = scale / count
        ctx.save_for_backward(grad_states.mul_(factor), None if grad_table is None else grad_table.mul_(factor))
        return total / count

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, grad_table = ctx.saved_tensors
        table = None if grad_table is None else grad_table * upstream[0]
        return grad_states * upstream[0], table, None, None, None, None, None


def _column_sums(values_NC: Tensor) -> Tensor:
    """Sums over the rows, float32; in blocks, as a sum of bfloat16 into float32 copies all of it first."""
    whole = len(values_NC) // _BLOCK
    blocks = values_NC[: whole * _BLOCK].view(whole, _BLOCK, values_NC.shape[1]).sum(1)
    return torch.cat([blocks, values_NC[whole * _BLOCK :]]).sum(0, dtype=torch.float32)


def catalogue_cross_entropy(
    states_PD: Tensor,
    table_ND: Tensor,
    targets_P: Tensor,
    scale: float,
    *,
    bounded: bool,
    low_precision: bool,
    real_P: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of `softmax(scale · states · tableᵀ)` at the targets, over the whole table.

    No (P, N) matrix outlives a chunk, and none is kept for the backward pass.

    Args:
        states_PD: float32.
        table_ND: float32; one without a gradient may be bfloat16 where the products are.
        targets_P: int64 rows of the table.
        scale: factor of the scores, one over the temperature.
        bounded: scores are cosines, so exponentials cannot overflow and need no maximum taken off
            (where `scale` is under BOUND; else the maximum is taken off all the same).
        low_precision: do the matrix products in bfloat16.
        real_P: which positions count, bool; None: all.
    """
    loss: Tensor = _CatalogueCrossEntropy.apply(
        states_PD, table_ND, targets_P, scale, bounded and scale < BOUND, low_precision, real_P
    )
    return loss


def mean_of(values_P: Tensor, real_P: Tensor | None) -> Tensor:
    """The mean of those values that count, of all where nothing says which do."""
    return values_P.mean() if real_P is None else (values_P * real_P).sum() / real_P.sum().clamp(min=1)


def sampled_cross_entropy(
    logits_P: Tensor, logits_PS: Tensor, same_PS: Tensor, n_items: int, real_P: Tensor | None = None
) -> Tensor:
    """Sampled softmax: cross-entropy of the targets against S items drawn uniformly from the catalogue.

    `−log exp(l_t) / (exp(l_t) + (N − 1)/S' Σ_j exp(l_j))` over the S' sampled items that are not the target.
    The factor is the correction: it makes the sampled sum an unbiased estimate of the sum over the whole
    catalogue (Bengio and Senécal, 2008).

    Args:
        logits_P: logit of each position's target, float32.
        logits_PS: logits of the sampled items, float32.
        same_PS: true where a sampled item is the position's target, bool.
        n_items: size N of the catalogue.
        real_P: which positions count, bool; None: all.
    """
    sampled = (~same_PS).sum(1).clamp(min=1)
    correction = torch.log((n_items - 1) / sampled)
    others = logits_PS.masked_fill(same_PS, -torch.inf).logsumexp(1) + correction
    return mean_of(torch.logaddexp(logits_P, others) - logits_P, real_P)


def info_nce(first_BD: Tensor, second_BD: Tensor, temperature: float, real_B: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE with cosine similarity: row i of one side belongs to row i of the other.

    `½ Σ_i −log softmax_j(cos(a_i, b_j)/τ)[i]` in both directions, averaged over the batch (Radford et al., 2021).
    Rows that `real_B` (bool) leaves out are none; without any row it is 0.
    """
    logits = F.normalize(first_BD, dim=-1) @ F.normalize(second_BD, dim=-1).t() / temperature
    labels = torch.arange(len(logits), device=logits.device)
    if real_B is not None:
        labels = labels.masked_fill(~real_B, NO_TARGET)
        # A number, not infinity: a row of nothing but infinities would have no gradient that is one.
        logits = logits.masked_fill(~(real_B & real_B[:, None]), torch.finfo(logits.dtype).min)
        both = (F.cross_entropy(each, labels, reduction="sum") for each in (logits, logits.t()))
        return sum(both, logits.new_zeros(())) / (2 * real_B.sum().clamp(min=1))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
