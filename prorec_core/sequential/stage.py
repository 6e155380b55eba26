"""Stage train_collaborative: item embeddings from behaviour alone. Knows sequences; knows nothing of texts.

Axes: N items, D dimensions.
"""

from __future__ import annotations

import torch
from torch import nn

from prorec_core.config import CollaborativeConfig
from prorec_core.data.sequences import Sequences
from prorec_core.sequential.base import ITEM_DEVIATION, SequentialModel, target_ranks
from prorec_core.sequential.trained import CollaborativeModel, build_model
from prorec_core.training.loop import fit_next_item
from prorec_core.training.runtime import Runtime, derive_seed


class _IdsAlone(nn.Module):
    """A sequential model with a free vector an item."""

    def __init__(self, model: SequentialModel, n_items: int, dim: int) -> None:
        super().__init__()
        self.model = model
        self.items = nn.Parameter(torch.randn(n_items, dim) * ITEM_DEVIATION)


def train_collaborative(
    config: CollaborativeConfig, sequences: Sequences, seed: int, runtime: Runtime, *, mask_history: bool = True
) -> CollaborativeModel:
    """Train DIN or SASRec on next-item prediction over item ids.

    Args:
        config: the model and its training.
        sequences: all users' items; what they hold back from training is held back here.
        seed: of the experiment.
        runtime: device, progress and checkpoints.
        mask_history: whether validation leaves out what a user already has.
    """
    torch.manual_seed(derive_seed(seed, "collaborative", "start"))
    model = build_model(config, config, config.dim, runtime.low_precision(config.precision))
    whole = _IdsAlone(model, sequences.n_items, config.dim).to(runtime.device)
    records = fit_next_item(
        whole,
        lambda batch: {"loss": model.training_loss(whole.items, batch)},
        lambda histories, targets: target_ranks(
            model, whole.items, histories, targets, config.max_history, masked=mask_history
        ),
        sequences,
        config,
        derive_seed(seed, "collaborative"),
        runtime,
    )
    embeddings = whole.items.detach().cpu().float().numpy()
    return CollaborativeModel(embeddings, dict(model.state_dict()), records, config)
