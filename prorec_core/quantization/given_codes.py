"""Codes of one's own in the place of a quantizer: what each of them means in the space of the embeddings.

Knows codes and embeddings. Knows nothing of how such codes were made, or of the file that they stand in (`code_files`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from prorec_core.config import QuantizeConfig
from prorec_core.progress import Report, silent
from prorec_core.quantization.quantizer import Codes, Floats, Quantizer, State, level_centroids, nearest

METHOD = "table"
"""The name of what gave the codes, where others have that of a quantizer."""


class GivenCodes(Quantizer):
    """What a table's codes mean: the mean of what the items of a code have left over, level by level.

    New items get, level by level, the nearest code that an item of the table has there.
    """

    def __init__(self, codebooks: list[Floats], used: list[npt.NDArray[np.int64]]) -> None:
        """`codebooks`: one a level, float32, shape (codes, D); `used`: the codes of a level that items have."""
        self.codebooks, self.used = codebooks, used
        self.levels = len(codebooks)

    @classmethod
    def fit(
        cls, embeddings_ND: Floats, config: QuantizeConfig, seed: int, report: Report = silent
    ) -> tuple[Self, Codes]:
        raise NotImplementedError("codes are given, and nothing is fitted: `meant_by`")

    @classmethod
    def meant_by(cls, codes_NL: Codes, embeddings_ND: Floats, n_codes: int) -> Self:
        """What the codes of some items mean, of which the embeddings are known, in the same order."""
        used = [np.unique(codes).astype(np.int64) for codes in codes_NL.T]
        return cls(level_centroids(embeddings_ND, codes_NL, n_codes), used)

    def encode(self, embeddings_ND: Floats) -> Codes:
        left, found = embeddings_ND.copy(), []
        for codebook, used in zip(self.codebooks, self.used, strict=True):
            code = used[nearest(left, codebook[used])]
            left -= codebook[code]
            found.append(code)
        return np.stack(found, axis=1).astype(np.uint16)

    def decode(self, codes_Nl: Codes) -> Floats:
        total = np.zeros((len(codes_Nl), self.codebooks[0].shape[1]), np.float32)
        for codebook, codes in zip(self.codebooks, codes_Nl.T, strict=False):
            total += codebook[codes]
        return total

    def state(self) -> State:
        books = {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks)}
        return {**books, **{f"used.{level}": used for level, used in enumerate(self.used)}}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        levels = range(len(state) // 2)
        return cls([state[f"codebook.{level}"] for level in levels], [state[f"used.{level}"] for level in levels])
