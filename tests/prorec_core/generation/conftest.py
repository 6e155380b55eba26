"""A small catalogue with codes and a Stage-I model over the checkerboard, trained once for all tests here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from prorec_core.alignment.stage import align
from prorec_core.alignment.trained import AlignedModel
from prorec_core.config import AlignConfig, CollaborativeConfig, GeneratorConfig
from prorec_core.data.sequences import Sequences
from prorec_core.generation.base import Generator, Items
from prorec_core.generation.stage import GeneratorInputs
from prorec_core.generation.trained import build_generator
from prorec_core.generation.trie import CodeTrie
from prorec_core.sequential.stage import train_collaborative
from prorec_core.training.runtime import Runtime

CPU = torch.device("cpu")
DIM = 16
N_ITEMS = 24
HISTORY = 6
"""Short enough that training meets every position that the test histories end at."""
Codes = npt.NDArray[np.uint16]
MakeConfig = Callable[..., GeneratorConfig]
MakeGenerator = Callable[..., Generator]
MakeInputs = Callable[..., GeneratorInputs]


def generator_config(**changes: Any) -> GeneratorConfig:
    settings: dict[str, Any] = {
        "dim": DIM,
        "layers": 1,
        "decoder_layers": 1,
        "heads": 2,
        "epochs": 2,
        "tokens_per_batch": 128,
        "learning_rate": 0.01,
        "warmup_steps": 5,
        "dropout": 0.1,
        "patience": 50,
        "max_history": 20,
        "precision": "float32",
        "validation_beams": 10,
        "warm_start": True,
    }
    distill = {"beta": 0.3, **changes.pop("distill", {"temperature": 0.2})}
    return GeneratorConfig.model_validate({**settings, **changes, "distill": distill})


def code_table(n_items: int = N_ITEMS, seed: int = 3) -> Codes:
    """Three levels, the last a suffix that tells equal ones apart."""
    random = np.random.default_rng(seed)
    pairs = np.sort(random.integers(0, 4, (n_items, 2)), axis=0)
    suffix = [int((pairs[:item] == pairs[item]).all(1).sum()) for item in range(n_items)]
    table = np.concatenate([pairs, np.array(suffix)[:, None]], axis=1)
    return random.permutation(table).astype(np.uint16)


def codebooks_of(codes: Codes, embeddings: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32] | None]:
    """Mean embedding of each code, none for the suffix; one code more than is in use, as a quantizer may have."""
    books: list[npt.NDArray[np.float32] | None] = []
    for level in range(codes.shape[1] - 1):
        book = np.zeros((int(codes[:, level].max()) + 2, embeddings.shape[1]), np.float32)
        for code in np.unique(codes[:, level]):
            book[code] = embeddings[codes[:, level] == code].mean(0)
        books.append(book)
    return [*books, None]


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    return generator_config


@pytest.fixture(scope="session")
def stage_one(checkerboard: Sequences) -> AlignedModel:
    runtime = Runtime(CPU)
    start = train_collaborative(shape_config(), checkerboard, 0, runtime)
    texts = np.random.default_rng(0).normal(size=(N_ITEMS, 10)).astype(np.float32)
    return align(align_config(), checkerboard, start, texts, 0, runtime)


def shape_config() -> CollaborativeConfig:
    return CollaborativeConfig(
        dim=DIM,
        layers=1,
        heads=2,
        epochs=12,
        learning_rate=0.02,
        warmup_steps=5,
        dropout=0.0,
        tokens_per_batch=128,
        max_history=HISTORY,
        precision="float32",
        temperature=0.15,
    )


def align_config() -> AlignConfig:
    return AlignConfig(
        epochs=12,
        learning_rate=0.02,
        warmup_steps=5,
        dropout=0.0,
        tokens_per_batch=128,
        max_history=HISTORY,
        precision="float32",
    )


@pytest.fixture(scope="session")
def make_inputs(checkerboard: Sequences, stage_one: AlignedModel) -> MakeInputs:
    """GeneratorInputs over the checkerboard; keywords replace its fields, and `config` those of the generator."""

    def make(**changes: Any) -> GeneratorInputs:
        codes = changes.pop("codes", code_table())
        embeddings = changes.pop("embeddings", stage_one.integrated)
        fields: dict[str, Any] = {
            "fusion_weights": [0.0, 0.5, 2.0],
            "beams": 10,
            "mask_history": True,
            "sequences": checkerboard,
            "codes": codes,
            "codebooks": codebooks_of(codes, embeddings),
            "embeddings": embeddings,
            "integrated": True,
            "aligned": stage_one,
            "texts": np.random.default_rng(0).normal(size=(N_ITEMS, 10)).astype(np.float32),
        }
        config = generator_config(**{"max_history": HISTORY, **changes.pop("config", {})})
        return GeneratorInputs(config=config, **{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def make_generator() -> MakeGenerator:
    """A generator with weights far from their start, so that its probabilities differ; in evaluation mode."""

    def make(
        config: GeneratorConfig, codes: Codes | None = None, *, low_precision: bool = False, shaken: float = 0.4
    ) -> Generator:
        codes = code_table() if codes is None else codes
        torch.manual_seed(11)
        embeddings = torch.randn(len(codes), DIM)
        kinds = {"integrated": embeddings}
        if config.distill.teacher == "both":
            kinds = {"semantic": torch.randn(len(codes), 12), "collaborative": torch.randn(len(codes), DIM)}
        if config.distill.beta == 0:
            kinds = {}
        books = [None if book is None else torch.from_numpy(book) for book in codebooks_of(codes, embeddings.numpy())]
        generator = build_generator(config, Items(CodeTrie.from_codes(codes), embeddings, kinds, books), low_precision)
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.add_(torch.randn_like(parameter) * shaken)
        return generator.eval()

    return make
