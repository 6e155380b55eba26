"""Residual k-means: each level clusters what the levels before left over. The default quantizer.

Residual quantization as in Juang and Gray, "Multiple stage vector quantization for speech coding" (1982), with
k-means codebooks. Knows embeddings and codes; knows nothing of items or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from prorec_core.config import QuantizeConfig
from prorec_core.progress import Progress, Report, silent
from prorec_core.quantization.blocks import pieces
from prorec_core.quantization.kmeans import kmeans, level_seed
from prorec_core.quantization.quantizer import Codes, Floats, Quantizer, State, nearest


class ResidualKMeans(Quantizer):
    """An embedding is the sum of one centroid a level: x ≈ Σ_l codebook_l[code_l]."""

    def __init__(self, codebooks: list[Floats]) -> None:
        """`codebooks`: one a level, float32, shape (codes of the level, D)."""
        self.codebooks = codebooks
        self.levels = len(codebooks)

    @classmethod
    def fit(
        cls, embeddings_ND: Floats, config: QuantizeConfig, seed: int, report: Report = silent
    ) -> tuple[Self, Codes]:
        left = embeddings_ND.copy()
        mean = embeddings_ND.mean(axis=0)
        power = _mean_square(lambda piece: embeddings_ND[piece] - mean, embeddings_ND)
        codebooks, codes = [], []
        for level in range(config.levels):
            codebook, code = cls._fit_level(left, config, level_seed(seed, level))
            _subtract(left, codebook, code)
            codebooks.append(codebook)
            codes.append(code)
            error = _mean_square(lambda piece: left[piece], left) / power if power > 0 else 0.0
            report(Progress(level + 1, config.levels, "level", {"relative_error": error}))
        return cls(codebooks), np.stack(codes, axis=1).astype(np.uint16)

    @classmethod
    def _fit_level(cls, left_ND: Floats, config: QuantizeConfig, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The codebook of one level and the items' codes in it."""
        codebook = kmeans(left_ND, config.codes, config.iterations, seed)
        return codebook, nearest(left_ND, codebook)

    def encode(self, embeddings_ND: Floats) -> Codes:
        left = embeddings_ND.copy()
        codes = []
        for codebook in self.codebooks:
            code = nearest(left, codebook)
            _subtract(left, codebook, code)
            codes.append(code)
        return np.stack(codes, axis=1).astype(np.uint16)

    def decode(self, codes_Nl: Codes) -> Floats:
        total = np.zeros((len(codes_Nl), self.codebooks[0].shape[1]), dtype=np.float32)
        for codebook, codes in zip(self.codebooks, codes_Nl.T, strict=False):
            known = codes < len(codebook)
            total[known] += codebook[codes[known]]
        return total

    def state(self) -> State:
        return {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks)}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        return cls([state[f"codebook.{level}"] for level in range(len(state))])


def _subtract(left_ND: Floats, codebook_KD: Floats, code_N: npt.NDArray[np.int64]) -> None:
    """Take each item's centroid from what is left of it, in place."""
    for piece in pieces(len(left_ND)):
        left_ND[piece] -= codebook_KD[code_N[piece]]


def _mean_square(values_in: Callable[[slice], Floats], like_ND: Floats) -> float:
    """Mean square of values of the shape of `like_ND` that are made piece by piece."""
    total = 0.0
    for piece in pieces(len(like_ND)):
        values = values_in(piece)
        total += float(np.square(values).mean()) * len(values)
    return total / len(like_ND)
