"""What several stages read of earlier ones. Knows which artifact holds which embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.stage import Work

if TYPE_CHECKING:
    from prorec_core.data.embeddings import FloatArray


def quantized_embedding(work: Work) -> FloatArray:
    """The embedding that the experiment's codes are made of, float32, shape (items, dimensions)."""
    return read_quantized(work.experiment.quantize.embedding, work.inputs)


def read_quantized(embedding: str, inputs: Mapping[str, Path]) -> FloatArray:
    """The embedding that codes are made of, by its name in the configuration, from the folders of the stages."""
    import numpy as np

    from prorec_core.data.embeddings import read_embeddings

    def of(stage: str) -> FloatArray:
        return read_embeddings(inputs[stage] / "embeddings.parquet", stage)

    match embedding:
        case "integrated":
            return of("align")
        case "semantic":
            return of("embed_text")
        case "collaborative":
            return of("train_collaborative")
        case _:
            return np.hstack([of("embed_text"), of("train_collaborative")])
