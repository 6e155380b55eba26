"""A model of 24 items that has learnt nothing, with a ranker and attributes, for tests of what stands around one."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from prorec_core.config import GeneratorConfig
from prorec_core.data.sequences import from_lists
from prorec_core.generation.base import Items
from prorec_core.generation.features import FEATURES
from prorec_core.generation.ranker import Ranker
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.relations import Relations
from prorec_core.generation.scoring import Dense, Fused, Generative, Ranked
from prorec_core.generation.trained import build_generator
from prorec_core.generation.trie import CodeTrie

IDS = [f"id-{item:02d}" for item in range(24)]
KINDS = ("Green tea", "Blue cup", "<b>Red</b> pot")
TITLES = [f"{KINDS[item // 8]} number {item}" for item in range(24)]


def tiny_recommender() -> Recommender:
    """Items of three kinds, each with codes of its own; the last two are new."""
    torch.manual_seed(3)
    codes = np.stack([np.arange(24) // 8, np.arange(24) % 8], axis=1).astype(np.uint16)
    vectors = torch.randn(24, 16)
    config = GeneratorConfig(dim=16, layers=1, decoder_layers=1, heads=2, precision="float32")
    items = Items(CodeTrie.from_codes(codes), vectors, {"integrated": vectors}, [None] * 2)
    generator = build_generator(config, items, low_precision=False).eval()
    counts = [*range(40, 18, -1), 0, 0]
    frame = pl.DataFrame({"item_id": IDS, "title": TITLES, "train_count": counts})
    attributes = pl.DataFrame({"price": np.arange(24) / 2, "kind": [KINDS[item // 8] for item in range(24)]})
    walks = from_lists([(np.arange(6, dtype=np.int32) + start) % 22 for start in range(22)], 24)
    weights = np.linspace(0.5, 1.5, len(FEATURES))
    ranker = Ranker(Relations.of(walks, np.random.default_rng(0).normal(size=(24, 8))), weights, weights[None])
    others = (Generative(), Dense(), Fused(1.0))
    return Recommender(generator, frame, Ranked(ranker), 20, attributes, others)
