from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.training.batching import HistoryBatch
from prorec_core.training.sampling import met_cross_entropy, met_in, met_items

ITEMS, DIM, SCALE = 400, 8, 6.0


@settings(deadline=None)
@given(st.sets(st.integers(0, 29), min_size=1), st.integers(1, 40), st.integers(0, 5))
def test_the_batchs_own_items_come_first_and_the_others_are_drawn_from_the_rest(
    own: set[int], sample: int, seed: int
) -> None:
    torch.manual_seed(seed)
    met = met_items(torch.tensor([*own, min(own)]), 30, sample)
    items = met.items_R.tolist()
    assert items[: met.own] == sorted(own)
    assert len(set(items)) == len(items) <= min(30, met.own + sample)
    assert items[met.own :] == sorted(items[met.own :])
    assert set(items) <= set(range(30))
    torch.testing.assert_close(met.log_weights_R.exp().sum(), torch.tensor(30.0))
    if sample >= 30 - len(own):
        assert set(items) == set(range(30))
    assert met.rows_of(torch.tensor(sorted(own))).tolist() == list(range(len(own)))


def test_a_batch_names_rows_that_hold_its_items() -> None:
    items, targets = torch.tensor([[7, 3, 0], [9, 0, 0]]), torch.tensor([[3, 20, -1], [7, -1, -1]])
    batch = HistoryBatch(torch.arange(2), items, torch.tensor([2, 1]), targets)
    met, rows = met_in(batch, 50, 10)
    assert torch.equal(met.items_R[rows.items_BL], items)
    assert rows.targets_BL is not None
    real = targets >= 0
    assert torch.equal(met.items_R[rows.targets_BL[real]], targets[real])
    assert (rows.targets_BL[~real] == -1).all()


def _problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    states = F.normalize(torch.randn(12, DIM, generator=generator), dim=-1).requires_grad_(True)
    table = F.normalize(torch.randn(ITEMS, DIM, generator=generator), dim=-1)
    return states, table, torch.randint(ITEMS, (12,), generator=generator)


def _sampled(sample: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean normaliser over the exact one, loss, and the gradient of the states."""
    states, table, targets = _problem()
    met = met_items(targets, ITEMS, sample)
    rows = table[met.items_R]
    loss = met_cross_entropy(states, rows, met.rows_of(targets), SCALE, met)
    (gradient,) = torch.autograd.grad(loss, states)
    exact = (states @ table.t() * SCALE).exp().sum(1)
    sums = ((states @ rows.t() * SCALE) + met.log_weights_R).exp().sum(1)
    return (sums / exact).detach(), loss.detach(), gradient


def test_a_sample_of_all_the_rest_is_the_whole_softmax() -> None:
    states, table, targets = _problem()
    exact = F.cross_entropy(states @ table.t() * SCALE, targets)
    (wanted,) = torch.autograd.grad(exact, states)
    _, loss, gradient = _sampled(ITEMS)
    torch.testing.assert_close(loss, exact.detach())
    torch.testing.assert_close(gradient, wanted)


def test_the_normaliser_is_unbiased_and_the_gradients_bias_falls_as_the_sample_grows() -> None:
    torch.manual_seed(0)
    states, table, targets = _problem()
    (wanted,) = torch.autograd.grad(F.cross_entropy(states @ table.t() * SCALE, targets), states)
    bias = {}
    for sample in (4, 16, 64):
        draws = [_sampled(sample) for _ in range(3000)]
        ratios = torch.stack([ratio.mean() for ratio, _, _ in draws])
        error = ratios.std() / len(draws) ** 0.5
        assert abs(float(ratios.mean()) - 1) < 4 * float(error) + 1e-3
        mean = torch.stack([gradient for _, _, gradient in draws]).mean(0)
        bias[sample] = float((mean - wanted).norm() / wanted.norm())
    assert bias[16] < 0.5 * bias[4]
    assert bias[64] < 0.5 * bias[16]
