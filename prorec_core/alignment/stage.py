"""Stage align: next-item prediction over the integrated embedding, jointly with alignment of the modalities.

Knows sequences and embeddings; knows nothing of codes. `L_1 = L_seq + α · L_align`. Axes: N items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.alignment.adapter import scaled_text
from prorec_core.alignment.graph import ItemGraph
from prorec_core.alignment.model import StageOne
from prorec_core.alignment.unseen import by_similar_text
from prorec_core.artifacts import read_json, write_json
from prorec_core.config import AlignConfig, CollaborativeConfig
from prorec_core.data.embeddings import read_embeddings, write_embeddings
from prorec_core.data.sequences import Sequences, Split
from prorec_core.evaluation.domination import domination
from prorec_core.sequential.base import SequentialModel, target_ranks, validation_measures
from prorec_core.sequential.stage import CollaborativeModel, Floats, build_model
from prorec_core.training.batching import HistoryBatch, training_batches
from prorec_core.training.checkpoint import load_tensors, save_tensors
from prorec_core.training.loop import train
from prorec_core.training.losses import info_nce
from prorec_core.training.runtime import Runtime, derive_seed

_EMBEDDINGS = {"integrated": "embeddings", "collaborative": "collaborative", "semantic": "semantic"}
"""Names of the files of embeddings; those of new items have `cold_` before."""
_SIMILAR = 5
"""Items of nearest text that tell where a new one belongs."""
_SHARE_OF_SIMILAR = 0.6
"""Their share in where it is put; its own text has the rest."""


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
        cold: the embeddings of new items; None where there are none.
    """

    integrated: Floats
    collaborative: Floats
    semantic: Floats
    tensors: Mapping[str, Tensor]
    domination: dict[str, Any]
    training: list[dict[str, Any]]
    cold: NewEmbeddings | None = None

    def save(self, folder: Path) -> None:
        """Write the three embeddings (of new items too), model.safetensors, domination.json and training.json."""
        for name, file in _EMBEDDINGS.items():
            write_embeddings(folder / f"{file}.parquet", getattr(self, name), "align")
            if self.cold is not None:
                write_embeddings(folder / f"cold_{file}.parquet", getattr(self.cold, name), "align")
        save_tensors(folder / "model.safetensors", self.tensors)
        write_json(folder / "domination.json", self.domination)
        write_json(folder / "training.json", {"epochs": self.training})

    @classmethod
    def load(cls, folder: Path) -> AlignedModel:
        """Read what `save` wrote."""

        def embeddings(prefix: str = "") -> dict[str, Floats]:
            files = {name: folder / f"{prefix}{file}.parquet" for name, file in _EMBEDDINGS.items()}
            return {name: read_embeddings(path, "align") for name, path in files.items()}

        return cls(
            **embeddings(),
            tensors=load_tensors(folder / "model.safetensors"),
            domination=read_json(folder / "domination.json"),
            training=read_json(folder / "training.json")["epochs"],
            cold=NewEmbeddings(**embeddings("cold_")) if (folder / "cold_embeddings.parquet").is_file() else None,
        )

    def with_new(self) -> AlignedModel:
        """The same model over all items: the new ones' embeddings stand after the others."""
        if self.cold is None:
            return self
        new = self.cold
        return replace(
            self,
            integrated=np.concatenate([self.integrated, new.integrated]),
            collaborative=np.concatenate([self.collaborative, new.collaborative]),
            semantic=np.concatenate([self.semantic, new.semantic]),
            cold=None,
        )

    def sequential_model(
        self, config: AlignConfig, collaborative: CollaborativeConfig, device: torch.device
    ) -> tuple[SequentialModel, Tensor]:
        """The trained sequential model and the table E_I that it scores, ready for inference on `device`."""
        model = build_model(collaborative, config, self.integrated.shape[1], low_precision=False)
        model.load_state_dict(dict(self.tensors))
        return model.to(device).eval(), torch.from_numpy(self.integrated).to(device)


def align(
    config: AlignConfig,
    collaborative: CollaborativeConfig,
    sequences: Sequences,
    start: CollaborativeModel,
    semantic: Floats,
    seed: int,
    runtime: Runtime,
    *,
    mask_history: bool = True,
    new_semantic: Floats | None = None,
) -> AlignedModel:
    """Train Stage I.

    Args:
        config: fusion, weight of the alignment and training.
        collaborative: the sequential model's shape.
        sequences: all users' items; what they hold back from training is held back here.
        start: the collaborative stage's model, where training starts (config.start).
        semantic: E_S, text embeddings, float32, shape (N, S).
        seed: of the experiment.
        runtime: device, progress and checkpoints.
        mask_history: whether validation leaves out what a user already has.
        new_semantic: text embeddings of new items, float32, shape (M, S), which get embeddings once all is trained.
    """
    torch.manual_seed(derive_seed(seed, "align", "start"))
    low = runtime.low_precision(config.precision)
    training, histories = sequences.training(), sequences.histories(Split.VALIDATION)
    graph = ItemGraph(training, config.graph) if config.graph else None
    stage = StageOne(config, collaborative, scaled_text(semantic), graph, low)
    if config.start == "collaborative":
        _start_from(stage, start)
    stage.to(runtime.device)
    targets = sequences.targets(Split.VALIDATION)

    def losses(batch: HistoryBatch) -> Mapping[str, Tensor]:
        with torch.autocast(runtime.device.type, torch.bfloat16, enabled=low):
            integrated, ids, adapted = stage.embeddings()
            next_item = stage.model.training_loss(integrated, batch)
            if config.alpha == 0:
                return {"loss": next_item}
            items = torch.unique(batch.items_BL[batch.is_item_BL])
            if len(items) > config.align_items:
                items = items[torch.randperm(len(items), device=items.device)[: config.align_items]]
            between = info_nce(F.embedding(items, ids), F.embedding(items, adapted), config.temperature)
        return {
            "loss": next_item + config.alpha * between,
            "loss_next_item": next_item,
            "loss_align": between,
        }

    def validate() -> Mapping[str, float]:
        table = stage.embeddings()[0]
        return validation_measures(
            target_ranks(stage.model, table, histories, targets, config.max_history, masked=mask_history)
        )

    records = train(
        stage,
        losses,
        lambda epoch_seed: training_batches(
            training, config.max_history, config.tokens_per_batch, epoch_seed, runtime.device
        ),
        validate if sequences.validates else None,
        config,
        derive_seed(seed, "align"),
        runtime,
    )
    with torch.no_grad():
        integrated, ids, adapted = (_array(table) for table in stage.embeddings())
    return AlignedModel(
        integrated,
        ids,
        adapted,
        dict(stage.model.state_dict()),
        domination(integrated, semantic, start.embeddings),
        records,
        None if new_semantic is None else _new_embeddings(stage, integrated, semantic, new_semantic),
    )


@torch.no_grad()
def _new_embeddings(stage: StageOne, integrated: Floats, semantic: Floats, new_semantic: Floats) -> NewEmbeddings:
    """By the text alone: the direction of its own E_T, and of what items of similar text have become.

    The length is the mean one.
    """
    adapted = stage.adapter(scaled_text(new_semantic).to(stage.items.device))
    nothing = torch.zeros_like(adapted)
    own = F.normalize(stage.fused(nothing, adapted).cpu().float(), dim=-1)
    known = torch.from_numpy(integrated)
    similar = torch.from_numpy(by_similar_text(F.normalize(known, dim=-1).numpy(), semantic, new_semantic, _SIMILAR))
    mixed = torch.lerp(own, F.normalize(similar, dim=-1), _SHARE_OF_SIMILAR)
    placed = F.normalize(mixed, dim=-1) * known.norm(dim=-1).mean()
    return NewEmbeddings(_array(placed), _array(nothing), _array(adapted))


def _start_from(stage: StageOne, start: CollaborativeModel) -> None:
    """Take over the collaborative stage's item vectors, and its model as far as the shapes agree."""
    with torch.no_grad():
        stage.items.copy_(torch.from_numpy(start.embeddings))
        own = stage.model.state_dict()
        fits = {name: value for name, value in start.tensors.items() if own[name].shape == value.shape}
    stage.model.load_state_dict({**own, **fits})


def _array(table: Tensor) -> Floats:
    return np.ascontiguousarray(table.detach().cpu().float().numpy())
