"""What `train_collaborative` leaves: item embeddings from behaviour and the model that they were trained with.

Knows the files of the artifact and the models by name; knows nothing of how they are trained. Axes: N items, D
dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prorec_core import versions
from prorec_core.artifacts import read_json, write_json
from prorec_core.config import CollaborativeConfig, Training
from prorec_core.data.embeddings import read_embeddings, write_embeddings
from prorec_core.registry import SEQUENTIAL_MODELS
from prorec_core.sequential.base import SequentialModel
from prorec_core.training.checkpoint import load_tensors, save_tensors

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CollaborativeModel:
    """What the stage leaves.

    Attributes:
        embeddings: E_C, float32, shape (N, D).
        tensors: the model's weights without the embeddings.
        training: one record an epoch.
        config: what the model is built from.
    """

    embeddings: Floats
    tensors: Mapping[str, Tensor]
    training: list[dict[str, Any]]
    config: CollaborativeConfig

    def save(self, folder: Path) -> None:
        """Write embeddings.parquet, model.safetensors, config.json and training.json."""
        write_json(folder / "config.json", versions.stored({"collaborative": self.config.model_dump(mode="json")}))
        write_embeddings(folder / "embeddings.parquet", self.embeddings)
        save_tensors(folder / "model.safetensors", self.tensors)
        write_json(folder / "training.json", {"epochs": self.training})

    @classmethod
    def load(cls, folder: Path) -> CollaborativeModel:
        """Read what `save` wrote, in this or an earlier version."""
        config = folder / "config.json"
        return cls(
            read_embeddings(folder / "embeddings.parquet", "train_collaborative"),
            load_tensors(folder / "model.safetensors"),
            read_json(folder / "training.json")["epochs"],
            versions.whole(CollaborativeConfig, versions.read(config).get("collaborative"), str(config)),
        )

    @property
    def max_history(self) -> int:
        """Items of a history that the model reads, the latest."""
        return self.config.max_history

    def sequential_model(self, device: torch.device) -> tuple[SequentialModel, Tensor]:
        """The trained model and the table E_C that it scores, ready for inference on `device`."""
        model = build_model(self.config, self.config, self.embeddings.shape[1], low_precision=False)
        model.load_state_dict(dict(self.tensors))
        return model.to(device).eval(), torch.from_numpy(self.embeddings).to(device)


def build_model(
    config: CollaborativeConfig, training: Training, table_dim: int, low_precision: bool
) -> SequentialModel:
    """The sequential model that the configuration names, with new weights; see `SequentialModel.build`."""
    kind: type[SequentialModel] = SEQUENTIAL_MODELS.load(config.model)
    return kind.build(config, training, table_dim, low_precision)
