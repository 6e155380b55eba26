"""A causal transformer over vectors. Knows positions and attention; knows nothing of items or losses.

Axes: B batch, L positions, D dimensions, H heads.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout at a rate rounded to 1/256, drawing one random byte a value instead of one random float.

    On a CPU the random numbers of the ordinary dropout cost a quarter of a training step.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.threshold = min(round(rate * 256), 255)

    def forward(self, values: Tensor) -> Tensor:
        """`values` with some set to zero and the rest scaled up, in training; unchanged otherwise."""
        if not self.training or self.threshold == 0:
            return values
        if values.device.type != "cpu" or torch.compiler.is_compiling():
            # There the ordinary one is a single operation.
            return F.dropout(values, self.threshold / 256)
        count = values.numel()
        words = torch.empty((count + 7) // 8, dtype=torch.int64, device=values.device)
        kept = words.random_(-(2**63), None).view(torch.uint8)[:count].view(values.shape) >= self.threshold
        return values * (kept * (256 / (256 - self.threshold))).to(values.dtype)


def exact(values: Tensor) -> Tensor:
    """As attention reads them: float32 on CPUs, where short sequences take bfloat16 two to seven times as long."""
    return values.float() if values.device.type == "cpu" else values


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Scaled dot-product attention over what is `exact`, shapes (B, H, L, D / H)."""
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


KeysValues = tuple[Tensor, Tensor]
"""Of what was seen so far, shape (B, H, L, D / H) each."""


class Attention(nn.Module):
    """Multi-head self-attention, causal or over a mask; without dropout, which would leave the fast kernel."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_BLD: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self._qkv(x_BLD)
        return self._out(attend(q, k, v, mask, causal=mask is None))

    def step(self, x_B1D: Tensor, earlier: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """What comes after what was seen `earlier`, shape (B, 1, D), and what has been seen with it."""
        q, k, v = self._qkv(x_B1D)
        if earlier is not None:
            k, v = torch.cat([earlier[0], k], dim=2), torch.cat([earlier[1], v], dim=2)
        return self._out(attend(q, k, v)), (k, v)

    def _qkv(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, dim = x_BLD.shape
        qkv = self.qkv(x_BLD).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = exact(qkv).permute(2, 0, 3, 1, 4)
        return q, k, v

    def _out(self, mixed_BHLE: Tensor) -> Tensor:
        out: Tensor = self.out(mixed_BHLE.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, dim))


class Block(nn.Module):
    """Pre-norm transformer block."""

    compiled: ClassVar[bool] = True

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm_2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, 2 * dim, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x_BLD: Tensor, mask: Tensor | None = None) -> Tensor:
        x_BLD = x_BLD + self.dropout(self.attention(self.norm_1(x_BLD), mask))
        return self._fed(x_BLD)

    def step(self, x_B1D: Tensor, earlier: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """As `Attention.step`."""
        found, seen = self.attention.step(self.norm_1(x_B1D), earlier)
        return self._fed(x_B1D + self.dropout(found)), seen

    def _fed(self, x_BLD: Tensor) -> Tensor:
        out: Tensor = x_BLD + self.dropout(self.feed_forward(self.norm_2(x_BLD)))
        return out


class CausalTransformer(nn.Module):
    """Learned positions, blocks and a last norm; the state at a position depends on nothing after it."""

    def __init__(self, dim: int, layers: int, heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.shape = dim, layers, heads, max_length
        # Inputs have unit variance; positions that large would drown them.
        self.positions = nn.Parameter(torch.randn(max_length, dim) * 0.3)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """States after each position, shape (B, L, D), from the inputs at the positions."""
        x_BLD = self.dropout(x_BLD + self.positions[: x_BLD.shape[1]])
        for block in self.blocks:
            x_BLD = block(x_BLD)
        out: Tensor = self.norm(x_BLD)
        return out
