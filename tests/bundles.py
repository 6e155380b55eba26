"""A model as it is registered, with weights by chance, for tests of bundles. Knows the files alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch

from prorec_core import versions
from prorec_core.alignment.adapter import AdaLNAdapter
from prorec_core.artifacts import write_json, write_parquet
from prorec_core.config import AlignConfig, CollaborativeConfig, GeneratorConfig, QuantizeConfig
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.data.embeddings import write_embeddings
from prorec_core.generation.base import Items
from prorec_core.generation.bundle import Placing
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.trained import TrainedGenerator, build_generator
from prorec_core.generation.trie import CodeTrie
from prorec_core.quantization.stage import quantize
from prorec_core.training.checkpoint import save_tensors

IDS = [f"id-{item:02d}" for item in range(24)]
WIDTH, _DIM = 8, 16


def write_bundle(folder: Path, *, encoder: str = "vectors") -> list[str]:
    """Write one over 24 items to a folder, which must not exist; gives the item ids."""
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    embeddings, config = torch.randn(len(IDS), _DIM), QuantizeConfig(levels=2, codes=8)
    quantized = quantize(config, embeddings.numpy(), IDS, 0)
    shape = GeneratorConfig(dim=_DIM, layers=1, decoder_layers=1, heads=2)
    trie = CodeTrie.from_codes(quantized.table.codes)
    generator = build_generator(shape, Items(trie, embeddings, {"integrated": embeddings}, [None] * 3), False)
    described = {"generator": shape.model_dump(mode="json"), "teachers": ["integrated"], "fusion_weight": 1.0}
    described |= {"ranker": None, "recommended": "fused", "stage_one": None, "beams": 50}
    TrainedGenerator(generator.state_dict(), described, []).save(folder)
    quantized.save(folder)
    save_tensors(folder / "adapter.safetensors", AdaLNAdapter(WIDTH, _DIM).state_dict())
    sections = {"align": AlignConfig(), "collaborative": CollaborativeConfig()}
    named = {name: each.model_dump(mode="json") for name, each in sections.items()}
    write_json(folder / "align.json", versions.stored(named))
    write_embeddings(folder / "embeddings.parquet", embeddings.numpy())
    rows = {"item": np.arange(len(IDS), dtype=np.int32), "item_id": IDS, "title": IDS, "text": IDS}
    items = pl.DataFrame({**rows, "train_count": np.arange(len(IDS))[::-1].copy()})
    write_parquet(folder / "items.parquet", items.to_arrow())
    texts = np.random.default_rng(0).normal(size=(len(IDS), WIDTH)).astype(np.float32)
    text, digest = TextConfig.model_validate({"encoder": encoder}), {"digest": "0" * 64}
    Placing(DataConfig(source="tables"), text, digest, config, texts).save(folder)
    Catalogue.of_training(len(IDS)).save(folder)
    return IDS


def items_file(path: Path, names: list[str], *, vectors: bool = True, width: int = WIDTH) -> Path:
    """An items file with these items."""
    rows = {"item_id": names, "title": [f"Title {name}" for name in names], "categories": ["a"] * len(names)}
    frame = pl.DataFrame(rows)
    if vectors:
        made = np.random.default_rng(len(names)).normal(size=(len(names), width)).tolist()
        frame = frame.with_columns(pl.Series("embedding", made, dtype=pl.List(pl.Float32)))
    frame.write_parquet(path)
    return path
