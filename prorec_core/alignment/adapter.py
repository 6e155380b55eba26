"""Modality adaptation: from a text embedding to the space of the collaborative one.

Knows vectors; knows nothing of users or training. Axes: N items, S text dimensions, D model dimensions.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AdaLNAdapter(nn.Module):
    """`E_T = scale(E_S) ⊙ LN(E_S W + b) + shift(E_S)`, the layer norm without weights of its own.

    Scale and shift are linear in the text embedding and start at 1 and 0 (adaptive layer norm, as in Peebles and
    Xie, 2023, conditioned on the text).
    """

    compiled: ClassVar[bool] = True

    def __init__(self, text_dim: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(text_dim, 3 * dim)
        with torch.no_grad():
            self.linear.weight[dim:] = 0
            self.linear.bias[:] = 0
            self.linear.bias[dim : 2 * dim] = 1

    def forward(self, text_NS: Tensor) -> Tensor:
        """Adapted semantic embeddings E_T, shape (N, D)."""
        value, scale, shift = self.linear(text_NS).float().split(self.dim, dim=-1)
        adapted_ND: Tensor = F.layer_norm(value, (self.dim,)) * scale + shift
        return adapted_ND


def scaled_text(embeddings: npt.NDArray[np.float32]) -> Tensor:
    """Text embeddings with the norm of their rows set to √s, as a layer expects its input; zero rows stay zero."""
    text_NS = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
    return F.normalize(text_NS, dim=-1) * math.sqrt(text_NS.shape[1])
