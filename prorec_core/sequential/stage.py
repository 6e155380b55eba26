"""Stage train_collaborative: item embeddings from behaviour alone. Knows sequences; knows nothing of texts.

Axes: N items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prorec_core.artifacts import read_json, write_json
from prorec_core.config import CollaborativeConfig, Training
from prorec_core.data.embeddings import read_embeddings, write_embeddings
from prorec_core.data.sequences import Sequences, Split
from prorec_core.sequential.base import SequentialModel, target_ranks, validation_measures
from prorec_core.sequential.din import DIN
from prorec_core.sequential.sasrec import SASRec
from prorec_core.training.batching import HistoryBatch, training_batches
from prorec_core.training.checkpoint import load_tensors, save_tensors
from prorec_core.training.loop import train
from prorec_core.training.runtime import Runtime, derive_seed

Floats = npt.NDArray[np.float32]
ITEM_DEVIATION = 0.02
"""Standard deviation of new item vectors."""


@dataclass(frozen=True)
class CollaborativeModel:
    """What the stage leaves.

    Attributes:
        embeddings: E_C, float32, shape (N, D).
        tensors: the model's weights without the embeddings.
        training: one record an epoch.
    """

    embeddings: Floats
    tensors: Mapping[str, Tensor]
    training: list[dict[str, Any]]

    def save(self, folder: Path) -> None:
        """Write embeddings.parquet, model.safetensors and training.json."""
        write_embeddings(folder / "embeddings.parquet", self.embeddings, "train_collaborative")
        save_tensors(folder / "model.safetensors", self.tensors)
        write_json(folder / "training.json", {"epochs": self.training})

    @classmethod
    def load(cls, folder: Path) -> CollaborativeModel:
        """Read what `save` wrote."""
        return cls(
            read_embeddings(folder / "embeddings.parquet", "train_collaborative"),
            load_tensors(folder / "model.safetensors"),
            read_json(folder / "training.json")["epochs"],
        )

    def sequential_model(self, config: CollaborativeConfig, device: torch.device) -> tuple[SequentialModel, Tensor]:
        """The trained model and the table E_C that it scores, ready for inference on `device`."""
        model = build_model(config, config, self.embeddings.shape[1], low_precision=False)
        model.load_state_dict(dict(self.tensors))
        return model.to(device).eval(), torch.from_numpy(self.embeddings).to(device)


def build_model(
    config: CollaborativeConfig,
    training: Training,
    table_dim: int,
    low_precision: bool,
) -> SequentialModel:
    """The sequential model that the configuration names, with new weights."""
    if config.model == "din":
        return DIN(config, table_dim, training.dropout, low_precision)
    return SASRec(config, table_dim, training.max_history, training.dropout, low_precision)


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
    return CollaborativeModel(embeddings, dict(whole.model.state_dict()), records)
