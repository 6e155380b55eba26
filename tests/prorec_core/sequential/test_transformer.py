from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.sequential.transformer import Attention, Block, CausalTransformer, Dropout


def _transformer(dropout: float = 0.2) -> CausalTransformer:
    torch.manual_seed(0)
    return CausalTransformer(dim=8, layers=2, heads=2, max_length=12, dropout=dropout).eval()


@given(st.integers(1, 3), st.integers(2, 12), st.data())
@settings(max_examples=30)
def test_a_state_depends_on_nothing_after_it(batch: int, length: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, length - 2))
    transformer = _transformer()
    x = torch.randn(batch, length, 8)
    changed = x.clone()
    changed[:, place + 1 :] = 10 * torch.randn(batch, length - place - 1, 8)
    before, after = transformer(x), transformer(changed)
    torch.testing.assert_close(before[:, : place + 1], after[:, : place + 1])
    torch.testing.assert_close(transformer(x[:, : place + 1]), before[:, : place + 1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_a_state_depends_on_all_before_it_and_on_their_order() -> None:
    transformer = _transformer()
    x = torch.randn(1, 6, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(transformer(x)[0, -1].square().sum(), x)
    assert (gradient.abs().sum(-1) > 0).all()
    turned = x[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(transformer(x)[0, -1], transformer(turned)[0, -1])


def test_attention_over_a_mask_sees_what_the_mask_allows() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2)
    x = torch.randn(1, 4, 8)
    lower = torch.ones(4, 4, dtype=torch.bool).tril()
    torch.testing.assert_close(attention(x, lower), attention(x))
    everything = attention(x, torch.ones(4, 4, dtype=torch.bool))
    torch.testing.assert_close(everything[:, -1], attention(x)[:, -1])
    assert not torch.allclose(everything[:, 0], attention(x)[:, 0])


def test_a_block_trains_all_its_weights() -> None:
    torch.manual_seed(0)
    block = Block(8, 2, dropout=0.0)
    x = torch.randn(2, 5, 8)
    out = block(x)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in block.parameters())


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_dropout_keeps_the_expectation_and_drops_at_its_rate(rate: float) -> None:
    torch.manual_seed(0)
    dropout = Dropout(rate)
    values = torch.full((400_000,), 2.0)
    found = dropout(values)
    exact = round(rate * 256) / 256
    kept = found[found != 0]
    assert (found == 0).float().mean().item() == pytest.approx(exact, abs=0.005)
    assert torch.equal(kept, kept[:1].expand_as(kept))
    assert kept[0].item() == pytest.approx(2 / (1 - exact), rel=1e-6)
    assert found.mean().item() == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (3, 5), (2, 0), (2, 3, 4)])
def test_dropout_takes_any_shape(shape: tuple[int, ...]) -> None:
    out = Dropout(0.5)(torch.ones(shape, dtype=torch.bfloat16))
    assert out.shape == shape
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.3])
def test_dropout_is_the_identity_in_evaluation_and_at_no_rate(rate: float) -> None:
    values = torch.randn(50)
    assert torch.equal(Dropout(rate).eval()(values), values)
    if rate < 1 / 512:
        assert torch.equal(Dropout(rate).train()(values), values)


@given(st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_the_rate_is_rounded_to_a_256th_and_never_to_one(rate: float) -> None:
    dropout = Dropout(rate)
    assert abs(dropout.threshold / 256 - rate) <= 1 / 256
    assert dropout(torch.ones(64)).isfinite().all()


def test_every_place_of_a_word_drops_alike() -> None:
    """One random word serves eight values: none of them may be dropped more than the others, nor together."""
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(80_000)) != 0).view(-1, 8).float()
    assert (kept.mean(0) - 0.5).abs().max() < 0.02
    correlation = torch.corrcoef(kept.t()) - torch.eye(8)
    assert correlation.abs().max() < 0.05


def test_the_seed_decides_what_is_dropped() -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(Dropout(0.5)(torch.ones(100)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
