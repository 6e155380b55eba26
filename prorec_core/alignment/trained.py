"""What `align` leaves: the integrated embedding, both it is made of, and the sequential model over it.

Knows the files of the artifact; knows nothing of how it is trained. Axes: N items, D dimensions, M new items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prorec_core import versions
from prorec_core.artifacts import read_json, write_json
from prorec_core.config import AlignConfig, CollaborativeConfig
from prorec_core.data.embeddings import read_embeddings, write_embeddings
from prorec_core.sequential.base import SequentialModel
from prorec_core.sequential.trained import Floats, build_model
from prorec_core.training.checkpoint import load_tensors, save_tensors

_EMBEDDINGS = {"integrated": "embeddings", "collaborative": "collaborative", "semantic": "semantic"}
"""Names of the files of embeddings; those of new items have `new_` before."""


@dataclass(frozen=True)
class NewEmbeddings:
    """Embeddings of M items that were not there in training.

    Attributes:
        integrated: E_I, from E_T and the E_I of items of similar text, float32, shape (M, D) or (M, 2 D).
        collaborative: E_C, of which nothing is known: zero, float32, shape (M, D).
        semantic: E_T, the adapter's, float32, shape (M, D).
    """

    integrated: Floats
    collaborative: Floats
    semantic: Floats


@dataclass(frozen=True)
class AlignedModel:
    """What the stage leaves.

    Attributes:
        integrated: E_I, float32, shape (N, D) or (N, 2 D).
        collaborative: E_C as aligning left it, float32, shape (N, D).
        semantic: E_T, the adapted text embeddings, float32, shape (N, D).
        tensors: weights of the sequential model over E_I.
        domination: how much of the neighbourhoods comes from text and how much from behaviour.
        training: one record an epoch.
        config: Stage I's section of the configuration.
        collaborative_config: the sequential model's.
        adapter: the adapter's weights, which place the texts of new items.
        new_items: the embeddings of new items; None where there are none.
    """

    integrated: Floats
    collaborative: Floats
    semantic: Floats
    tensors: Mapping[str, Tensor]
    domination: dict[str, Any]
    training: list[dict[str, Any]]
    config: AlignConfig
    collaborative_config: CollaborativeConfig
    adapter: Mapping[str, Tensor]
    new_items: NewEmbeddings | None = None

    def save(self, folder: Path) -> None:
        """Write the embeddings (of new items too), weights, config.json, domination.json and training.json."""
        configs = {"align": self.config, "collaborative": self.collaborative_config}
        written = {name: each.model_dump(mode="json") for name, each in configs.items()}
        write_json(folder / "config.json", versions.stored(written))
        save_tensors(folder / "adapter.safetensors", self.adapter)
        for name, file in _EMBEDDINGS.items():
            write_embeddings(folder / f"{file}.parquet", getattr(self, name))
            if self.new_items is not None:
                write_embeddings(folder / f"new_{file}.parquet", getattr(self.new_items, name))
        save_tensors(folder / "model.safetensors", self.tensors)
        write_json(folder / "domination.json", self.domination)
        write_json(folder / "training.json", {"epochs": self.training})

    @classmethod
    def load(cls, folder: Path) -> AlignedModel:
        """Read what `save` wrote, in this or an earlier version."""

        def embeddings(prefix: str = "") -> dict[str, Floats]:
            files = {name: folder / f"{prefix}{file}.parquet" for name, file in _EMBEDDINGS.items()}
            return {name: read_embeddings(path, "align") for name, path in files.items()}

        place = folder / "config.json"
        configs = versions.read(place)
        return cls(
            **embeddings(),
            tensors=load_tensors(folder / "model.safetensors"),
            domination=read_json(folder / "domination.json"),
            training=read_json(folder / "training.json")["epochs"],
            config=versions.whole(AlignConfig, configs.get("align"), str(place)),
            collaborative_config=versions.whole(CollaborativeConfig, configs.get("collaborative"), str(place)),
            adapter=load_tensors(folder / "adapter.safetensors"),
            new_items=NewEmbeddings(**embeddings("new_")) if (folder / "new_embeddings.parquet").is_file() else None,
        )

    def with_new(self) -> AlignedModel:
        """The same model over all items: the new ones' embeddings stand after the others."""
        if self.new_items is None:
            return self
        new = self.new_items
        return replace(
            self,
            integrated=np.concatenate([self.integrated, new.integrated]),
            collaborative=np.concatenate([self.collaborative, new.collaborative]),
            semantic=np.concatenate([self.semantic, new.semantic]),
            new_items=None,
        )

    @property
    def max_history(self) -> int:
        """Items of a history that the model reads, the latest."""
        return self.config.max_history

    def sequential_model(self, device: torch.device) -> tuple[SequentialModel, Tensor]:
        """The trained sequential model and the table E_I that it scores, ready for inference on `device`."""
        model = build_model(self.collaborative_config, self.config, self.integrated.shape[1], low_precision=False)
        model.load_state_dict(dict(self.tensors))
        return model.to(device).eval(), torch.from_numpy(self.integrated).to(device)
