"""What the stages of one experiment left, gathered as the folder that a model is.

Knows which files of which stages recommending and placing new items need; knows nothing of registries.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from prorec_core.artifacts import MANIFEST, read_json
from prorec_core.config import QuantizeConfig
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.data import kept_attributes
from prorec_core.data.embeddings import write_embeddings
from prorec_core.generation.bundle import Placing
from prorec_core.generation.catalogue import Catalogue
from prorec_core.quantization.quantized import Quantized
from prorec_core.stages.inputs import new_quantized_embedding, quantized_embedding, read_dataset, texts
from prorec_core.stages.work import StageWork


def fill_bundle(bundle: Path, work: StageWork) -> list[str]:
    """Gather what serving needs; returns the item ids of a short history, as an example.

    New items that the experiment holds out stand in the tables after the others: what is served knows them too.
    """
    dataset = read_dataset(work)
    bundle.mkdir()
    for source in (
        work.folder / "model.safetensors",
        work.folder / "config.json",
        work.folder / "training.json",
        work.inputs["quantize"] / "codes.parquet",
        # What gives an item that is new to the model its embedding and its codes.
        work.inputs["align"] / "adapter.safetensors",
        work.inputs["quantize"] / "codebooks.safetensors",
        work.inputs["quantize"] / "quality.json",
    ):
        shutil.copyfile(source, bundle / source.name)
    shutil.copyfile(work.inputs["align"] / "config.json", bundle / "align.json")
    read = {
        name: read_json(work.inputs[name] / MANIFEST)["config"] for name in ("preprocess", "embed_text", "quantize")
    }
    text = TextConfig.model_validate(read["embed_text"]["text"])
    Placing(
        DataConfig.model_validate(read["preprocess"]["data"]),
        text,
        {**read_json(work.inputs["embed_text"] / "encoder.json"), "model": text.model},
        QuantizeConfig.model_validate(read["quantize"]["quantize"]),
        texts(work)[: dataset.items.height],
    ).save(bundle)
    Catalogue.of_training(dataset.n_items_with_new, dataset.items.height).save(bundle)
    if (kept := work.inputs["preprocess"] / kept_attributes.FILE).is_file():
        shutil.copyfile(kept, bundle / kept.name)
    embeddings = quantized_embedding(work)
    if dataset.new_items is not None:
        embeddings = np.concatenate([embeddings, new_quantized_embedding(work)])
        Quantized.load(work.inputs["quantize"]).all_items().save(bundle / "codes.parquet")
    dataset.save_all_items(bundle / "items.parquet")
    write_embeddings(bundle / "embeddings.parquet", embeddings)
    return [str(item) for item in dataset.items["item_id"].head(3)]
