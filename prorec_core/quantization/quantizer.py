"""What every quantizer has in common. Knows embeddings and codes; knows nothing of items, files or training.

Axes: N items, D dimensions, L code levels, K codes a level, l levels (1 … L) of a prefix of the codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from prorec_core.config import QuantizeConfig
from prorec_core.errors import UserError
from prorec_core.progress import Report, silent
from prorec_core.quantization.blocks import LARGE_TABLE, all_cores, pieces

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint16]
State = dict[str, npt.NDArray[Any]]

_CHUNK = 4096
_DISTANCES = 1 << 24
"""Distances of a chunk of points, at most: 128 MiB in float64."""


class Quantizer(ABC):
    """A fitted map between embeddings and tuples of L codes, each below K.

    Codes of a level may be fewer than K where the items have fewer distinct embeddings.
    """

    levels: int
    """Code levels L."""

    @classmethod
    @abstractmethod
    def fit(
        cls, embeddings_ND: Floats, config: QuantizeConfig, seed: int, report: Report = silent
    ) -> tuple[Self, Codes]:
        """Learn codebooks and give the items their codes.

        Args:
            embeddings_ND: float32, finite (see `check_embeddings`), at least one row.
            config: `levels`, `codes`, `iterations` and the method's own section.
            seed: with equal input and seed the result is equal to the bit on the same machine.
            report: told after each level (or epoch).

        Returns:
            The fitted quantizer, and the items' codes, uint16, shape (N, L). They are `encode`'s, unless the
            method gives codes by more than nearness.
        """

    @abstractmethod
    def encode(self, embeddings_ND: Floats) -> Codes:
        """Codes of any items, also of ones that were not there in `fit`; uint16, shape (N, L)."""

    @abstractmethod
    def decode(self, codes_Nl: Codes) -> Floats:
        """The embeddings that codes, or the first l >= 1 of them, stand for; float32, shape (N, D).

        Codes that no item had are allowed.
        """

    @abstractmethod
    def state(self) -> State:
        """All that was learnt, as named arrays."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The quantizer whose `state` this is."""


def check_embeddings(embeddings_ND: npt.NDArray[Any]) -> Floats:
    """The embeddings as contiguous float32.

    Raises:
        UserError: there is no item, or a value is not finite.
    """
    if embeddings_ND.ndim != 2 or not embeddings_ND.size:
        raise UserError(
            f"there are no embeddings to quantize (shape {embeddings_ND.shape})", cure="Check the stage 'align'"
        )
    found = np.ascontiguousarray(embeddings_ND, dtype=np.float32)
    broken = ~np.isfinite(found).all(axis=1)
    if broken.any():
        raise UserError(
            f"the embeddings of {int(broken.sum())} items hold values that are not finite (first: item "
            f"{int(broken.argmax())})",
            cure="Their training diverged: lower its learning_rate and run it again",
        )
    return found


def squared_distances(points_ND: npt.NDArray[Any], centroids_KD: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Squared Euclidean distances, shape (N, K), computed in float64."""
    points, centroids = points_ND.astype(np.float64), centroids_KD.astype(np.float64)
    cross = points @ centroids.T
    cross *= -2
    cross += np.square(points).sum(axis=1)[:, None]
    cross += np.square(centroids).sum(axis=1)
    return np.maximum(cross, 0, out=cross)


def nearest(points_ND: Floats, centroids_KD: Floats) -> npt.NDArray[np.int64]:
    """Index of the nearest centroid of each point, the first of equal ones, shape (N,)."""

    def closest(piece: slice) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = squared_distances(points_ND[piece], centroids_KD).argmin(axis=1)
        return found

    size = max(1, min(_CHUNK, _DISTANCES // len(centroids_KD)))
    if len(points_ND) > LARGE_TABLE:
        with all_cores() as share:
            return np.concatenate(share(closest, len(points_ND), size))
    return np.concatenate([np.zeros(0, np.int64), *map(closest, pieces(len(points_ND), size))])


def group_means(points_ND: npt.NDArray[Any], group_N: npt.NDArray[np.int64], n_groups: int) -> npt.NDArray[np.float64]:
    """Mean of the points of each group, added up in float64; zero for an empty one; shape (n_groups, D)."""
    return _means_of(lambda piece: points_ND[piece].astype(np.float64), group_N, n_groups)


def _means_of(
    points_in: Callable[[slice], npt.NDArray[np.float64]], group_N: npt.NDArray[np.int64], n_groups: int
) -> npt.NDArray[np.float64]:
    """`group_means` of points that are made piece by piece."""
    total: npt.NDArray[np.float64] | float = 0.0
    for piece in pieces(len(group_N)):
        group = group_N[piece]
        row = np.arange(len(group))
        member = csr_array((np.ones(len(row)), (group, row)), shape=(n_groups, len(row)))
        total = total + member @ points_in(piece)
    means: npt.NDArray[np.float64] = total / np.maximum(np.bincount(group_N, minlength=n_groups), 1)[:, None]
    return means


def level_centroids(embeddings_ND: Floats, codes_NL: Codes, n_codes: int) -> list[Floats]:
    """What each code means in the space of the embeddings, level by level, whatever gave the codes.

    The centroid of a code of the first level is the mean embedding of the items with it; of a deeper level, the
    mean of what the centroids of the levels before leave over. For residual k-means these are its codebooks.

    Returns:
        L arrays, float32, shape (K, D) with K = `n_codes`; zero where no item has the code.
    """
    exact: list[npt.NDArray[np.float64]] = []

    def left(piece: slice) -> npt.NDArray[np.float64]:
        points = embeddings_ND[piece].astype(np.float64)
        for centroids, codes in zip(exact, codes_NL[piece].T, strict=False):
            points -= centroids[codes]
        return points

    for codes in codes_NL.T.astype(np.int64):
        exact.append(_means_of(left, codes, n_codes))
    return [centroids.astype(np.float32) for centroids in exact]


def relative_error(embeddings_ND: Floats, reconstructed_ND: Floats) -> float:
    """Mean squared error of a reconstruction relative to the variance of the embeddings; 0 when both are 0."""
    total: npt.NDArray[np.float64] | float = 0.0
    for piece in pieces(len(embeddings_ND)):
        total = total + embeddings_ND[piece].astype(np.float64).sum(axis=0)
    mean = total / len(embeddings_ND)
    error = variance = 0.0
    for piece in pieces(len(embeddings_ND)):
        exact = embeddings_ND[piece].astype(np.float64)
        error += float(np.square(exact - reconstructed_ND[piece]).sum())
        variance += float(np.square(exact - mean).sum())
    return error / variance if variance > 0 else float(error > 0)
