"""What E_S is made of, as it is kept beside the embeddings and in a model: one source, or several side by side.

Knows names, widths and standardisation; knows nothing of encoders or of files of vectors. Axes: N items, S dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
TEXT = "text"
"""The source that `text.encoder` makes."""


@dataclass(frozen=True)
class SemanticSource:
    """One source, as it is kept beside the embeddings and in a model: what makes a vector of it a part of E_S.

    Attributes:
        name: `text`, or one of `text.vectors`.
        width: its dimensions, in E_S those after the dimensions of the sources before it.
        digest: of the encoder, or of the file.
        mean: of each dimension, float32 values; None: vectors stand in E_S as they are.
        scale: what is divided by after the mean is taken off; None likewise.
        missing: what becomes of items without a vector: error, or mean.
        items: known items.
        without: how many of them have no vector.
        new_without: how many new items that were held out have none.
        examples: ids of a few of either.
    """

    name: str
    width: int
    digest: str
    mean: list[float] | None = None
    scale: float | None = None
    missing: str = "error"
    items: int = 0
    without: int = 0
    new_without: int = 0
    examples: list[str] = field(default_factory=list)

    def placed(self, vectors_NS: FloatArray, there_N: Mask) -> FloatArray:
        """Its part of E_S, float32, shape (N, width), of vectors as they come from an encoder or a file.

        Args:
            vectors_NS: what stands where there is none does not matter.
            there_N: which items have one.
        """
        if self.mean is None or self.scale is None:
            return vectors_NS
        centred = vectors_NS - np.array(self.mean, np.float32)
        return np.asarray(np.where(there_N[:, None], centred / np.float32(self.scale), 0), np.float32)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    @classmethod
    def all_of(cls, encoder: Mapping[str, Any], width: int) -> list[Self]:
        """The sources that an `encoder.json` tells, in their order in E_S; one of before knows the text alone.

        Args:
            encoder: its values.
            width: dimensions of E_S.
        """
        if "sources" not in encoder:
            return [cls(TEXT, width, str(encoder.get("digest", "")))]
        return [cls(**each) for each in encoder["sources"]]


@dataclass(frozen=True)
class Semantic:
    """E_S of all items, float32, shape (N, S), and the sources that it is made of."""

    embeddings: FloatArray
    sources: list[SemanticSource]
