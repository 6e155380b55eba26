"""What `train_generator` leaves, and the generator built from it again: all that recommending needs.

Knows the files of the artifact, generators and sequential models by name; knows nothing of how they are trained.
Axes: N items, E dimensions of the quantized embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prorec_core import versions
from prorec_core.artifacts import read_json, write_json
from prorec_core.config import AlignConfig, CollaborativeConfig, GeneratorConfig
from prorec_core.errors import UserError
from prorec_core.generation.base import Generator, Items
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.ranker import Ranker
from prorec_core.generation.ranker_net import Network
from prorec_core.generation.relations import Relations
from prorec_core.generation.trie import CodeTrie
from prorec_core.registry import GENERATORS
from prorec_core.sections import Section
from prorec_core.sequential.start import load_weights
from prorec_core.sequential.trained import Floats, build_model
from prorec_core.training.checkpoint import load_tensors, save_tensors

TEACHER = "teacher."
RANKER = "ranker."
"""Before the names of tensors: teachers of new items too, and what only the ranker reads."""
NETWORK = "network."
_OF_CODES = ("heads.", "code_vectors.")
"""Parameters with a row a code."""
_STAGE_ONES = "stage_one."
"""Those of the model of Stage I that it carries along."""


@dataclass(frozen=True)
class TrainedGenerator:
    """What the stage leaves.

    Attributes:
        tensors: the generator's weights, the frozen teachers, and what the ranker knows of items.
        config: all that is needed to build the generator again, the fusion weight, the ranker's weights, which score
            recommends, and which options could not be applied.
        training: one record an epoch.
    """

    tensors: Mapping[str, Tensor]
    config: dict[str, Any]
    training: list[dict[str, Any]]

    def save(self, folder: Path) -> None:
        """Write model.safetensors, config.json and training.json."""
        save_tensors(folder / "model.safetensors", self.tensors)
        write_json(folder / "config.json", versions.stored(self.config))
        write_json(folder / "training.json", {"epochs": self.training})

    @classmethod
    def load(cls, folder: Path) -> TrainedGenerator:
        """Read what `save` wrote, in this or an earlier version.

        Raises:
            UserError: a newer version of this software wrote it, or a file cannot be read.
        """
        return cls(
            load_tensors(folder / "model.safetensors"),
            _read_config(folder / "config.json"),
            read_json(folder / "training.json")["epochs"],
        )

    @property
    def fusion_weight(self) -> float | None:
        """Weight λ of the dense score, chosen on validation or the only one given; None where there is none."""
        weight: float | None = self.config["fusion_weight"]
        return weight

    @property
    def fusion_folds(self) -> list[float]:
        """By fold of the validation users the weight λ that the others chose; none where nothing was chosen."""
        return list(self.config.get("fusion_folds", []))

    @property
    def ranker(self) -> Ranker | None:
        """What ranks the candidates of both scores; None where there is none."""
        fitted = self.config["ranker"]
        if fitted is None:
            return None
        known = {name.removeprefix(RANKER): tensor for name, tensor in self.tensors.items() if name.startswith(RANKER)}
        weights = np.array(fitted["weights"]), np.array(fitted["folds"])
        return Ranker(Relations.from_tensors(known), *weights, network_of(self.tensors))

    @property
    def recommended(self) -> str:
        """The score that was best on validation and so recommends: ranked, fused or generative."""
        return str(self.config["recommended"])

    @property
    def beams(self) -> int:
        """Beams with which it was measured."""
        return int(self.config["beams"])

    @property
    def history_masked(self) -> bool:
        """Whether it was measured, and so recommends by itself, without what a user has already."""
        return bool(self.config.get("history_masked", True))


def network_of(tensors: Mapping[str, Tensor]) -> Network | None:
    """The ranker's network among a generator's tensors; None where it has none."""
    first = f"{RANKER}{NETWORK}"
    found = {name.removeprefix(first): tensor for name, tensor in tensors.items() if name.startswith(first)}
    return Network.from_tensors(found) if found else None


def ranker_tensors(relations: Relations, network: Network | None) -> dict[str, Tensor]:
    """What a ranker is made of beside its weights, by the names that it is kept under."""
    of_network = {} if network is None else {f"{NETWORK}{name}": each for name, each in network.tensors().items()}
    return {f"{RANKER}{name}": tensor for name, tensor in {**relations.tensors(), **of_network}.items()}


_STAGE_ONE: dict[str, type[Section]] = {"collaborative": CollaborativeConfig, "align": AlignConfig}
"""Sections that tell the shape of Stage I's model."""
_NEEDED = ("beams", "fusion_weight", "ranker", "recommended", "stage_one", "teachers")
"""What recommending reads beside the sections."""


def _read_config(path: Path) -> dict[str, Any]:
    """The content of config.json, up to date; its sections were found whole."""
    stored = versions.parsed(path.read_bytes(), str(path))
    own = {name: value for name, value in stored.items() if name not in {versions.KEY, "generator"}}
    named = {name: stored[name] for name in (versions.KEY, "generator") if name in stored}
    record = named | (own.get("stage_one") or {}) | {"trained_generator": own}
    sections = versions.up_to_date(record, str(path))
    config = dict(sections["trained_generator"])
    if missing := [name for name in _NEEDED if name not in config]:
        raise UserError(
            f"there is no {', '.join(missing)}", place=str(path), cure="Run the stage 'train_generator' again"
        )
    kinds: dict[str, type[Section]] = {"generator": GeneratorConfig, **(_STAGE_ONE if config["stage_one"] else {})}
    for name, kind in kinds.items():
        versions.whole(kind, sections.get(name), str(path))
    if config["stage_one"]:
        config["stage_one"] = {name: sections[name] for name in _STAGE_ONE}
    return {**config, "generator": sections["generator"]}


def build_generator(config: GeneratorConfig, items: Items, low_precision: bool) -> Generator:
    """The generator that the configuration names, with new weights."""
    kind: type[Generator] = GENERATORS.load(config.architecture)
    return kind(config, items, low_precision)


def restore_generator(
    trained: TrainedGenerator,
    codes: np.ndarray[Any, np.dtype[np.uint16]],
    embeddings: Floats,
    device: torch.device,
    catalogue: Catalogue | None = None,
) -> Generator:
    """A trained generator, ready for inference in float32, over the items that it was trained on or new ones besides.

    A code that no item had in training starts as the mean of its level's codes: nothing speaks for or against it.

    Args:
        trained: what the stage left.
        codes: the code table, uint16, shape (N, levels); new items stand after the others.
        embeddings: the embedding that was quantized, float32, shape (N, E), in the same order.
        device: where to put it.
        catalogue: what came later and what was withdrawn; None: nothing.
    """
    # In the order of training: each teacher has its own summary token.
    teachers = {
        name: torch.from_numpy(embeddings)
        if name == "integrated"
        else trained.tensors[f"{TEACHER}{name}"][: len(codes)]
        for name in trained.config["teachers"]
    }
    trie = CodeTrie.from_codes(codes)
    since = None if catalogue is None or not catalogue.grown else torch.from_numpy(catalogue.since.astype(np.int64))
    items = Items(trie, torch.from_numpy(embeddings), teachers, [None] * trie.depth, since)
    config = GeneratorConfig.model_validate(trained.config["generator"])
    generator = build_generator(config, items, low_precision=False)
    if shape := trained.config["stage_one"]:
        collaborative = CollaborativeConfig.model_validate(shape["collaborative"])
        align = AlignConfig.model_validate(shape["align"])
        generator.attach_stage_one(build_model(collaborative, align, embeddings.shape[1], low_precision=False))
    own = {name: tensor for name, tensor in trained.tensors.items() if not name.startswith((TEACHER, RANKER))}
    for name, table in generator.named_parameters():
        if name.startswith(_OF_CODES) and name in own:
            own[name] = _as_many(own[name], len(table))
    generator.load_state_dict(own)
    generator.to(device).eval()
    generator.trie = trie.to(device)
    offsets = None if catalogue is None else catalogue.offsets()
    if offsets is not None:
        generator.offset_items(torch.from_numpy(offsets).to(device))
    return generator


def go_on_from(generator: Generator, tensors: Mapping[str, Tensor], *, same_codes: bool) -> None:
    """Have a new generator start with the weights of an earlier one, whatever catalogue that had.

    Args:
        generator: without a model of Stage I.
        tensors: what the earlier one left.
        same_codes: whether codes mean what they meant there; if not, those of the new one stay as they start.

    Raises:
        UserError: the earlier one is of another shape.
    """
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith((TEACHER, RANKER, _STAGE_ONES))}
    for name, table in generator.state_dict().items():
        if name.startswith(_OF_CODES):
            carried = same_codes and name in own
            own[name] = _as_many(own[name], len(table))[: len(table)] if carried else table
    load_weights(generator, own, "generator")


def _as_many(tensor: Tensor, rows: int) -> Tensor:
    """The tensor with its mean row added until it has as many."""
    missing = rows - len(tensor)
    return tensor if missing <= 0 else torch.cat([tensor, tensor.mean(0, keepdim=True).expand(missing, -1)])
