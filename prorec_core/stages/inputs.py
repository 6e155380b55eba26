"""What several stages read of earlier ones. Knows which artifact holds which embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prorec_core.stages.work import StageWork

if TYPE_CHECKING:
    from prorec_core.config import Experiment
    from prorec_core.data.dataset import Dataset
    from prorec_core.data.embeddings import FloatArray
    from prorec_core.text.semantic import SemanticSource

QUANTIZED = {
    "integrated": ("align",),
    "semantic": ("embed_text",),
    "collaborative": ("train_collaborative",),
    "concatenation": ("embed_text", "train_collaborative"),
}
"""By its name in the configuration, whose embeddings stand side by side in the one that codes are made of."""


def read_dataset(work: StageWork) -> Dataset:
    """The preprocessed data; its sequences hold back from training what the experiment says."""
    from prorec_core.data.dataset import Dataset

    return held_back(Dataset.load(work.inputs["preprocess"]), work.experiment)


def held_back(dataset: Dataset, experiment: Experiment) -> Dataset:
    """A data set with what an experiment says held back from training, and items that count what is left."""
    import dataclasses

    import polars as pl

    if not experiment.train_on_validation:
        return dataset
    sequences = dataset.sequences.with_validation_in_training()
    counts = pl.Series("train_count", sequences.train_counts(), pl.Int64)
    return dataclasses.replace(dataset, items=dataset.items.with_columns(counts), sequences=sequences)


def texts(work: StageWork) -> FloatArray:
    """Text embeddings E_S, those of new items that the experiment holds out after the others, float32."""
    return read_texts(work.inputs["embed_text"])


def read_texts(folder: Path) -> FloatArray:
    """What `texts` gives, from the folder of the stage embed_text."""
    import numpy as np

    from prorec_core.data.embeddings import read_embeddings

    files = [folder / name for name in ("embeddings.parquet", "new_embeddings.parquet")]
    return np.concatenate([read_embeddings(file, "embed_text") for file in files if file.is_file()])


def read_sources(folder: Path) -> list[SemanticSource]:
    """What E_S is made of, in its order, from the folder of the stage embed_text."""
    import pyarrow.parquet as pq

    from prorec_core.artifacts import read_json
    from prorec_core.text.semantic import SemanticSource

    width = pq.read_schema(folder / "embeddings.parquet").field("embedding").type.list_size
    file = folder / "encoder.json"
    return SemanticSource.all_of(read_json(file) if file.is_file() else {}, width)


def quantized_embedding(work: StageWork) -> FloatArray:
    """The embedding that the experiment's codes are made of, float32, shape (items, dimensions)."""
    return read_quantized(work.experiment.quantize.embedding, work.inputs)


def new_quantized_embedding(work: StageWork) -> FloatArray:
    """The same of the new items that the experiment holds out, float32, shape (new items, dimensions)."""
    return read_new_quantized(work.experiment.quantize.embedding, work.inputs)


def read_new_quantized(embedding: str, inputs: Mapping[str, Path]) -> FloatArray:
    """What `read_quantized` reads, of the new items.

    Where the codes are of a collaborative embedding, which new items lack, that of items of similar text stands in.
    """
    from prorec_core.alignment.new_items import by_similar_text

    def new(stage: str) -> FloatArray:
        if stage != "train_collaborative":
            return _embeddings(inputs, stage, "new_embeddings.parquet")
        known, text = (_embeddings(inputs, name) for name in (stage, "embed_text"))
        return by_similar_text(known, text, _embeddings(inputs, "embed_text", "new_embeddings.parquet"))

    return _side_by_side([new(stage) for stage in QUANTIZED[embedding]])


def read_quantized(embedding: str, inputs: Mapping[str, Path]) -> FloatArray:
    """The embedding that codes are made of, by its name in the configuration, from the folders of the stages."""
    return _side_by_side([_embeddings(inputs, stage) for stage in QUANTIZED[embedding]])


def _side_by_side(parts: list[FloatArray]) -> FloatArray:
    import numpy as np

    # One alone may be large, and is not to be copied.
    return parts[0] if len(parts) == 1 else np.hstack(parts)


def _embeddings(inputs: Mapping[str, Path], stage: str, file: str = "embeddings.parquet") -> FloatArray:
    from prorec_core.data.embeddings import read_embeddings

    return read_embeddings(inputs[stage] / file, stage)
