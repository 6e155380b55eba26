"""Stage train_collaborative: item embeddings from behaviour alone. Knows sequences; knows nothing of texts.

Axes: N items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prorec_core.config import CollaborativeConfig
from prorec_core.data.sequences import Sequences, Split
from prorec_core.sequential.base import ITEM_DEVIATION, SequentialModel, target_ranks, validation_measures
from prorec_core.sequential.trained import CollaborativeModel, build_model
from prorec_core.training.batching import HistoryBatch, training_batches
from prorec_core.training.loop import train
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
    low = runtime.low_precision(config.precision)
    whole = _IdsAlone(build_model(config, config, config.dim, low), sequences.n_items, config.dim)
    whole.to(runtime.device)
    training, histories = sequences.training(), sequences.histories(Split.VALIDATION)
    targets = sequences.targets(Split.VALIDATION)

    def losses(batch: HistoryBatch) -> Mapping[str, Tensor]:
        with torch.autocast(runtime.device.type, torch.bfloat16, enabled=low):
            return {"loss": whole.model.training_loss(whole.items, batch)}

    def validate() -> Mapping[str, float]:
        return validation_measures(
            target_ranks(whole.model, whole.items, histories, targets, config.max_history, masked=mask_history)
        )

    records = train(
        whole,
        losses,
        lambda epoch_seed: training_batches(
            training, config.max_history, config.tokens_per_batch, epoch_seed, runtime.device
        ),
        validate if sequences.validates else None,
        config,
        derive_seed(seed, "collaborative"),
        runtime,
    )
    embeddings = whole.items.detach().cpu().float().numpy()
    return CollaborativeModel(embeddings, dict(whole.model.state_dict()), records, config)
