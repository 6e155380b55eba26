from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.alignment.adapter import AdaLNAdapter, scaled_text


@given(st.integers(1, 9), st.integers(1, 7), st.integers(2, 8))
@settings(max_examples=30)
def test_the_adapter_starts_as_a_plain_layer_norm(items: int, text_dim: int, dim: int) -> None:
    torch.manual_seed(0)
    adapter, text = AdaLNAdapter(text_dim, dim), torch.randn(items, text_dim)
    expected = F.layer_norm(text @ adapter.linear.weight[:dim].t(), (dim,))
    torch.testing.assert_close(adapter(text), expected)


def test_scale_and_shift_come_from_the_text() -> None:
    torch.manual_seed(0)
    dim, text = 4, torch.randn(6, 3)
    adapter = AdaLNAdapter(3, dim)
    with torch.no_grad():
        adapter.linear.weight.normal_()
        adapter.linear.bias.normal_()
    value, scale, shift = (
        text @ adapter.linear.weight[part].t() + adapter.linear.bias[part]
        for part in (slice(0, dim), slice(dim, 2 * dim), slice(2 * dim, 3 * dim))
    )
    torch.testing.assert_close(adapter(text), F.layer_norm(value, (dim,)) * scale + shift)


def test_all_its_weights_learn_from_the_start() -> None:
    torch.manual_seed(0)
    adapter = AdaLNAdapter(3, 4)
    (adapter(torch.randn(6, 3)) * torch.randn(6, 4)).sum().backward()
    assert adapter.linear.weight.grad is not None
    assert (adapter.linear.weight.grad.abs().sum(1) > 0).all()


def test_an_item_without_text_adapts_to_nothing() -> None:
    out = AdaLNAdapter(3, 4)(torch.zeros(1, 3))
    assert torch.equal(out, torch.zeros(1, 4))


def test_text_is_scaled_to_the_root_of_its_dimensions() -> None:
    text = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32) * 40
    text[2] = 0
    found = scaled_text(text[::-1])
    torch.testing.assert_close(found.norm(dim=1), torch.tensor([3.0, 3.0, 0.0, 3.0, 3.0]))
    torch.testing.assert_close(F.normalize(found, dim=1), F.normalize(torch.from_numpy(text[::-1].copy()), dim=1))
    assert found.dtype == torch.float32
