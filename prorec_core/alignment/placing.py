"""Where items that nobody has used yet stand in the integrated embedding, by their texts alone.

Knows a trained adapter and embeddings; knows nothing of training or files. Axes: N known items, M new items, S text
dimensions, E dimensions of the integrated embedding.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.alignment.adapter import AdaLNAdapter, scaled_text
from prorec_core.alignment.model import fused
from prorec_core.alignment.new_items import by_similar_text
from prorec_core.alignment.trained import NewEmbeddings
from prorec_core.config import AlignConfig
from prorec_core.sequential.trained import Floats

_SIMILAR = 5
"""Items of nearest text that tell where a new one belongs."""
_SHARE_OF_SIMILAR = 0.6
"""Their share in where it is put; its own text has the rest."""


@torch.no_grad()
def place(
    adapter: AdaLNAdapter, config: AlignConfig, integrated_NE: Floats, text_NS: Floats, new_text_MS: Floats
) -> NewEmbeddings:
    """By the text alone: the direction of its own E_T, and of what items of similar text have become.

    The length is the mean one.

    Args:
        adapter: as Stage I left it.
        config: that of Stage I.
        integrated_NE: E_I of the items that were trained on.
        text_NS: their text embeddings E_S.
        new_text_MS: those of the new items.
    """
    adapted = adapter(scaled_text(new_text_MS).to(adapter.linear.weight.device))
    nothing = torch.zeros_like(adapted)
    own = F.normalize(fused(config, nothing, adapted).cpu().float(), dim=-1)
    known = torch.from_numpy(integrated_NE)
    similar = torch.from_numpy(by_similar_text(F.normalize(known, dim=-1).numpy(), text_NS, new_text_MS, _SIMILAR))
    mixed = torch.lerp(own, F.normalize(similar, dim=-1), _SHARE_OF_SIMILAR)
    placed = F.normalize(mixed, dim=-1) * known.norm(dim=-1).mean()
    return NewEmbeddings(_array(placed), _array(nothing), _array(adapted))


def _array(table: Tensor) -> Floats:
    return np.ascontiguousarray(table.detach().cpu().float().numpy())
