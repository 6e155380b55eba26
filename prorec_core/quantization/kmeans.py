"""k-means with equal bits for equal input. Knows points and centroids; knows nothing of levels or codes.

Up to `LARGE_TABLE` points scikit-learn's, on all of them. Above, Lloyd's algorithm on a sample, block by block on all
cores: its cost depends on the number of clusters, no longer on that of points.
Axes: N points, D dimensions, K clusters.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from prorec_core.quantization.blocks import LARGE_TABLE, Share, all_cores
from prorec_core.quantization.quantizer import Floats

_FITTED_TO = 65_536
_FITTED_A_CLUSTER = 256
"""Points that a large table is fitted to: as many a cluster, and at least so many."""
_STARTED_FROM = 8192
_STARTED_A_CLUSTER = 32
"""Points among which the start is looked for, likewise."""
_SCORES = 1 << 20
"""Distances of a block, at most: 4 MiB, so that they stay in a core's cache."""
_LEAST_ROWS = 128
"""Points of a block, at least: fewer would waste the time of a product."""
_TOLERANCE = 1e-4
"""Of the squared movement of the centroids, in units of the mean variance of a dimension; scikit-learn's."""


def level_seed(seed: int, *place: int) -> int:
    """A seed for one part of the work, unrelated to those of the other parts."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


def kmeans(points_ND: Floats, clusters: int, iterations: int, seed: int) -> Floats:
    """Centroids by Lloyd's algorithm from a k-means++ start.

    The bits do not depend on the number of threads: products and sums of one block are always one thread's.

    Args:
        points_ND: float32, at least one row.
        clusters: how many at most; points with fewer distinct values get one centroid each, exactly.
        iterations: of Lloyd's algorithm, at most.
        seed: of the sample and of the start.

    Returns:
        float32, shape (min(clusters, distinct points), D).
    """
    if len(points_ND) > LARGE_TABLE:
        return sampled_kmeans(points_ND, clusters, iterations, seed)
    distinct = _distinct(points_ND)
    if len(distinct) <= clusters:
        return distinct
    model = KMeans(clusters, n_init=1, max_iter=iterations, random_state=seed)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        centroids: Floats = model.fit(points_ND).cluster_centers_
    return centroids.astype(np.float32, copy=False)


def sample(points_ND: Floats, size: int, seed: int) -> Floats:
    """At most `size` of the points, drawn evenly without repetition, in their order."""
    if len(points_ND) <= size:
        return points_ND
    rows = np.random.default_rng(seed).choice(len(points_ND), size, replace=False)
    return points_ND[np.sort(rows)]


def fitting_sample(points_ND: Floats, clusters: int, seed: int) -> Floats:
    """What so many clusters are fitted to: a sample of a large table, all points of others."""
    return sample(points_ND, _fitted_to(clusters), seed) if len(points_ND) > LARGE_TABLE else points_ND


def _fitted_to(clusters: int) -> int:
    return max(_FITTED_TO, _FITTED_A_CLUSTER * clusters)


def sampled_kmeans(points_ND: Floats, clusters: int, iterations: int, seed: int) -> Floats:
    """`kmeans` of a large table, by a sample of its points."""
    size = _fitted_to(clusters)
    drawn = sample(points_ND, size, seed)
    if len(_distinct(drawn)) <= clusters:
        # Most points are alike: what sets the others apart may be too rare for the sample.
        distinct = _distinct(points_ND)
        if len(distinct) <= clusters:
            return distinct
        drawn = sample(distinct, size, seed)
    mean = drawn.mean(axis=0, dtype=np.float64).astype(np.float32)
    # Around their mean, distances lose no digits to the length of the vectors.
    drawn = drawn - mean
    with all_cores() as share:
        few = sample(drawn, max(_STARTED_FROM, _STARTED_A_CLUSTER * clusters), seed)
        start: Floats = kmeans_plusplus(few, clusters, random_state=seed)[0]
        found: Floats = _lloyd(drawn, start, iterations, share) + mean
    return found


def _lloyd(points_ND: Floats, centroids_KD: Floats, iterations: int, share: Share) -> Floats:
    """Centroids that each are the mean of the points nearest to them, as far as `iterations` lead."""
    tolerance = _TOLERANCE * float(points_ND.var(axis=0).mean())
    codes_N = np.zeros(0, np.int64)
    for _ in range(iterations):
        before_N = codes_N
        codes_N, distances_N = _closest(points_ND, centroids_KD, share)
        means_KD = _means(points_ND, codes_N, centroids_KD, distances_N)
        moved = float(np.square(means_KD - centroids_KD).sum())
        centroids_KD = means_KD
        if moved <= tolerance or np.array_equal(codes_N, before_N):
            break
    return centroids_KD


def _closest(points_ND: Floats, centroids_KD: Floats, share: Share) -> tuple[npt.NDArray[np.int64], Floats]:
    """Each point's nearest centroid, and how far it is: squared, without the square of the point itself."""
    squares_K = np.square(centroids_KD).sum(axis=1)
    across_DK = np.ascontiguousarray(centroids_KD.T) * np.float32(-2)

    def closest(piece: slice) -> tuple[npt.NDArray[np.int64], Floats]:
        scores = points_ND[piece] @ across_DK
        scores += squares_K
        codes = scores.argmin(axis=1)
        return codes, np.take_along_axis(scores, codes[:, None], axis=1)[:, 0]

    parts = share(closest, len(points_ND), max(_LEAST_ROWS, _SCORES // len(centroids_KD)))
    codes, distances = zip(*parts, strict=True)
    return np.concatenate(codes), np.concatenate(distances)


def _means(points_ND: Floats, codes_N: npt.NDArray[np.int64], centroids_KD: Floats, distances_N: Floats) -> Floats:
    """The mean of each cluster's points; one without any goes to one of the points farthest from theirs."""
    size_K = np.bincount(codes_N, minlength=len(centroids_KD))
    row = np.arange(len(codes_N))
    member = csr_array((np.ones(len(row), np.float32), (codes_N, row)), shape=(len(size_K), len(row)))
    means_KD: Floats = (member @ points_ND) / np.maximum(size_K, 1)[:, None].astype(np.float32)
    empty = np.flatnonzero(size_K == 0)
    if len(empty):
        distances_N = distances_N + np.square(points_ND).sum(axis=1)
        means_KD[empty] = points_ND[np.argsort(-distances_N, kind="stable")[: len(empty)]]
    return means_KD


def _distinct(points_ND: Floats) -> Floats:
    """The distinct points, in the order of their first appearance."""
    rows = np.ascontiguousarray(points_ND + np.float32(0)).view(f"V{points_ND.shape[1] * 4}").ravel()
    first = np.unique(rows, return_index=True)[1]
    return points_ND[np.sort(first)]
