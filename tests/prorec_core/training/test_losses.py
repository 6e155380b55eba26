from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prorec_core.training.losses import catalogue_cross_entropy, info_nce, sampled_cross_entropy


def _case(
    positions: int, items: int, dim: int, seed: int, *, cosine: bool, frozen: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    states, table = torch.randn(positions, dim), torch.randn(items, dim)
    if cosine:
        states, table = F.normalize(states, dim=-1), F.normalize(table, dim=-1)
    return states.requires_grad_(), table.requires_grad_(not frozen), torch.randint(items, (positions,))


def _with_gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    # An upstream factor tells a gradient that ignores what comes after the loss.
    return (loss.detach(), *torch.autograd.grad(3 * loss, leaves))


@given(
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from([0.5, 1.0, 16.0, 70.0, 200.0]),
)
@settings(max_examples=50)
def test_catalogue_cross_entropy_is_the_ordinary_one(
    positions: int, items: int, dim: int, bounded: bool, scale: float
) -> None:
    states, table, targets = _case(positions, items, dim, items, cosine=bounded)
    ours = catalogue_cross_entropy(states, table, targets, scale, bounded=bounded, low_precision=False)
    exact = F.cross_entropy(scale * states @ table.t(), targets)
    for mine, theirs in zip(_with_gradients(ours, states, table), _with_gradients(exact, states, table), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("positions", [1, 511, 512, 513, 1300])
def test_chunks_leave_no_seam(positions: int, bounded: bool) -> None:
    states, table, targets = _case(positions, 50, 6, 1, cosine=bounded)
    ours = catalogue_cross_entropy(states, table, targets, 5.0, bounded=bounded, low_precision=False)
    exact = F.cross_entropy(5 * states @ table.t(), targets)
    for mine, theirs in zip(_with_gradients(ours, states, table), _with_gradients(exact, states, table), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("items", [63, 64, 65, 128, 200])
def test_blocks_of_items_leave_no_seam(items: int) -> None:
    states, table, targets = _case(9, items, 6, 5, cosine=True)
    ours = catalogue_cross_entropy(states, table, targets, 5.0, bounded=True, low_precision=False)
    exact = F.cross_entropy(5 * states @ table.t(), targets)
    for mine, theirs in zip(_with_gradients(ours, states, table), _with_gradients(exact, states, table), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_frozen_table_may_be_in_bfloat16_already() -> None:
    found = []
    for kind in (torch.float32, torch.bfloat16):
        states, table, targets = _case(60, 20, 5, 3, cosine=True, frozen=True)
        loss = catalogue_cross_entropy(states, table.to(kind), targets, 9.0, bounded=True, low_precision=True)
        found.append(_with_gradients(loss, states))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bounded", [True, False])
def test_bfloat16_stays_near(bounded: bool) -> None:
    states, table, targets = _case(700, 200, 32, 2, cosine=bounded)
    scale = 16.0 if bounded else 0.5
    ours = catalogue_cross_entropy(states, table, targets, scale, bounded=bounded, low_precision=True)
    exact = F.cross_entropy(scale * states @ table.t(), targets)
    mine, theirs = _with_gradients(ours, states, table), _with_gradients(exact, states, table)
    torch.testing.assert_close(mine[0], theirs[0], rtol=1e-2, atol=1e-2)
    for gradient, right in zip(mine[1:], theirs[1:], strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - right).norm() < 0.05 * right.norm()


@pytest.mark.parametrize("low_precision", [True, False])
def test_a_frozen_table_gets_no_gradient_and_the_states_the_same(low_precision: bool) -> None:
    gradients = []
    for frozen in (True, False):
        states, table, targets = _case(60, 20, 5, 3, cosine=True, frozen=frozen)
        catalogue_cross_entropy(states, table, targets, 9.0, bounded=True, low_precision=low_precision).backward()
        gradients.append(states.grad)
        assert (table.grad is None) == frozen
    torch.testing.assert_close(gradients[0], gradients[1])


def test_inputs_are_left_as_they_were() -> None:
    states, table, targets = _case(10, 20, 5, 4, cosine=False)
    before = states.detach().clone(), table.detach().clone()
    catalogue_cross_entropy(states, table, targets, 2.0, bounded=False, low_precision=False).backward()
    assert torch.equal(states, before[0])
    assert torch.equal(table, before[1])


def test_large_unbounded_logits_do_not_overflow() -> None:
    states = torch.full((3, 1), 1000.0, requires_grad=True)
    table = torch.tensor([[1.0], [0.999], [-1.0]])
    loss = catalogue_cross_entropy(states, table, torch.zeros(3).long(), 1.0, bounded=False, low_precision=False)
    exact = math.log(1 + math.exp(-1.0) + math.exp(-2000.0))
    assert loss.item() == pytest.approx(exact, rel=1e-3)


def test_no_positions_cost_nothing() -> None:
    states, table, targets = _case(0, 4, 3, 5, cosine=True)
    loss = catalogue_cross_entropy(states, table, targets, 1.0, bounded=True, low_precision=False)
    loss.backward()
    assert loss.item() == 0
    assert table.grad is not None
    assert not table.grad.any()


def test_the_sampled_partition_is_unbiased() -> None:
    """`(e^loss − 1) e^l` is the sampled estimate of the sum over all other items; its mean must be that sum."""
    items, negatives, draws = 40, 8, 6_000
    torch.manual_seed(6)
    logits, target = torch.randn(items, dtype=torch.float64), 7
    sampled = torch.randint(items, (draws, negatives))
    estimates = torch.stack(
        [
            torch.expm1(
                sampled_cross_entropy(logits[target : target + 1], logits[row][None], (row == target)[None], items)
            )
            for row in sampled
        ]
    )
    estimate = estimates * logits[target].exp()
    exact = logits.exp().sum() - logits[target].exp()
    error = estimate.std() / math.sqrt(draws)
    assert abs(estimate.mean() - exact) < 4 * error
    assert error < 0.02 * exact


def test_sampling_each_item_once_gives_the_whole_softmax() -> None:
    torch.manual_seed(7)
    logits, targets = torch.randn(5, 12), torch.randint(12, (5,))
    same = targets[:, None] == torch.arange(12)
    ours = sampled_cross_entropy(logits.gather(1, targets[:, None])[:, 0], logits, same, 12)
    torch.testing.assert_close(ours, F.cross_entropy(logits, targets))


def test_a_sample_of_nothing_but_the_target_has_no_loss_and_no_gradient() -> None:
    correct, sampled = torch.zeros(2, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    same = torch.tensor([[True, True, True], [True, False, True]])
    loss = sampled_cross_entropy(correct, sampled, same, 2)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2) / 2)
    assert correct.grad is not None and sampled.grad is not None
    assert correct.grad[0] == 0
    assert not sampled.grad[same].any()
    assert sampled.grad[1, 1] == pytest.approx(0.25)


def test_info_nce_of_known_pairs() -> None:
    basis = torch.eye(4)
    # One cosine of 1 against three of 0, whatever the lengths of the vectors.
    expected = -math.log(math.exp(2) / (math.exp(2) + 3))
    assert info_nce(basis * 5, basis * 0.1, 0.5).item() == pytest.approx(expected, rel=1e-5)
    same = torch.ones(4, 3)
    assert info_nce(same, same, 0.1).item() == pytest.approx(math.log(4), rel=1e-5)
    assert info_nce(torch.randn(1, 3), torch.randn(1, 3), 0.1).item() == pytest.approx(0)


def test_info_nce_is_symmetric_and_pulls_pairs_together() -> None:
    torch.manual_seed(8)
    first, second = torch.randn(6, 5), torch.randn(6, 5)
    torch.testing.assert_close(info_nce(first, second, 0.2), info_nce(second, first, 0.2))
    assert info_nce(first, first + 0.01 * second, 0.2) < info_nce(first, second, 0.2)
    logits = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).t() / 0.2
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
    torch.testing.assert_close(info_nce(first, second, 0.2), expected)


def test_info_nce_leaves_rows_out() -> None:
    torch.manual_seed(9)
    first, second = torch.randn(6, 5), torch.randn(6, 5)
    second[2] = 0
    second.requires_grad_()
    real = torch.arange(6) != 2
    loss = info_nce(first, second, 0.2, real)
    torch.testing.assert_close(loss, info_nce(first[real], second[real], 0.2))
    loss.backward()
    assert second.grad is not None and not second.grad[2].any() and second.grad.abs().max() < 10
    # No row at all is no loss, and no gradient either.
    second.grad = None
    nothing = info_nce(first, second, 0.2, torch.zeros(6, dtype=torch.bool))
    nothing.backward()
    assert nothing == 0 and not second.grad.any()
