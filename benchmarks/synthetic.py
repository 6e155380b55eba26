"""A registered model of so many synthetic items, for measuring what serving costs as the catalogue grows.

Knows what a registered model is made of; nothing in it has learnt anything. The items are those of `catalogue`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.catalogue import clustered_items, code_table

NAME = "synthetic"


def register(n_items: int, scratch: Path) -> str:
    """Register a model in the folder of artifacts in force; returns its address.

    Args:
        n_items: of its catalogue.
        scratch: an empty folder for what the stages before would have left.
    """
    import polars as pl
    import torch

    from prorec.tasks.execution.stage import Work
    from prorec.tasks.stages.pipeline import STAGES
    from prorec.tasks.stages.registration import register as log
    from prorec.tasks.tracking import mlflow_runs
    from prorec.tasks.tracking.mlflow_runs import TrackedRun
    from prorec_core.artifacts import write_manifest
    from prorec_core.config import Experiment, GeneratorConfig
    from prorec_core.data.dataset import Dataset
    from prorec_core.data.embeddings import write_embeddings
    from prorec_core.data.sequences import from_lists
    from prorec_core.generation.base import Items
    from prorec_core.generation.trained import TrainedGenerator, build_generator
    from prorec_core.generation.trie import CodeTrie
    from prorec_core.progress import silent
    from prorec_core.quantization.quantized import CodeTable

    stages = {name: scratch / name for name in ("preprocess", "embed_text", "align", "quantize", "out")}
    for folder in stages.values():
        folder.mkdir()
    ids = [f"item-{item:07d}" for item in range(n_items)]
    counts = np.arange(n_items, 0, -1)
    columns = {"item_id": ids, "title": ids, "text": ids, "train_count": counts}
    items = pl.DataFrame({"item": np.arange(n_items, dtype=np.int32), **columns})
    walk = from_lists([np.arange(5, dtype=np.int32)], n_items)
    users = pl.DataFrame({"user": [0], "user_id": ["ann"]})
    attributes = pl.DataFrame({"price": np.random.default_rng(2).random(n_items)})
    Dataset(items, users, walk, np.arange(5), {}, attributes=attributes).save(stages["preprocess"])
    codes, vectors = code_table(n_items), torch.from_numpy(clustered_items(n_items))
    CodeTable(codes, ids).save(stages["quantize"] / "codes.parquet")
    nothing = {"align": ["adapter.safetensors", "config.json"], "quantize": ["codebooks.safetensors", "quality.json"]}
    for stage, files in nothing.items():
        for file in files:
            (stages[stage] / file).write_text("of no use to a generator that is asked for known items")
    (stages["embed_text"] / "encoder.json").write_text("{}")
    write_embeddings(stages["embed_text"] / "embeddings.parquet", clustered_items(n_items))
    write_embeddings(stages["align"] / "embeddings.parquet", vectors.numpy())
    for name in ("preprocess", "embed_text", "quantize"):
        write_manifest(stages[name], name, STAGES[name].values(Experiment(name=NAME)), {})
    torch.manual_seed(0)
    config = GeneratorConfig(dim=128, precision="float32")
    trie = CodeTrie.from_codes(codes)
    generator = build_generator(config, Items(trie, vectors, {"integrated": vectors}, [None] * trie.depth), False)
    described: dict[str, Any] = {"generator": config.model_dump(mode="json"), "teachers": ["integrated"]}
    described |= {"fusion_weight": 1.0, "ranker": None, "recommended": "fused", "stage_one": None, "beams": 50}
    TrainedGenerator(generator.state_dict(), described, []).save(stages["out"])
    run = TrackedRun.start(mlflow_runs.experiment_id(NAME), "train_generator")
    run.tags(log(Work(Experiment(name=NAME), {}, stages, stages["out"], scratch, silent, run)))
    run.finish()
    return f"models:/{mlflow_runs.experiment_name(NAME)}/latest"
