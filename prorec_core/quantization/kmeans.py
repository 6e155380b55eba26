"""k-means with equal bits for equal input. Knows points and centroids; knows nothing of levels or codes."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from prorec_core.quantization.quantizer import Floats


def level_seed(seed: int, *place: int) -> int:
    """A seed for one part of the work, unrelated to those of the other parts."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


def kmeans(points_ND: Floats, clusters: int, iterations: int, seed: int) -> Floats:
    """Centroids by Lloyd's algorithm from a k-means++ start.

    One thread: with more, the order of the additions, and so the last bits, differ from run to run.

    Args:
        points_ND: float32, at least one row.
        clusters: how many at most; points with fewer distinct values get one centroid each, exactly.
        iterations: of Lloyd's algorithm, at most.
        seed: of the start.

    Returns:
        float32, shape (min(clusters, distinct points), D).
    """
    distinct = _distinct(points_ND)
    if len(distinct) <= clusters:
        return distinct
    model = KMeans(clusters, n_init=1, max_iter=iterations, random_state=seed)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        centroids: Floats = model.fit(points_ND).cluster_centers_
    return centroids.astype(np.float32, copy=False)


def _distinct(points_ND: Floats) -> Floats:
    """The distinct points, in the order of their first appearance."""
    rows = np.ascontiguousarray(points_ND + np.float32(0)).view(f"V{points_ND.shape[1] * 4}").ravel()
    first = np.unique(rows, return_index=True)[1]
    return points_ND[np.sort(first)]
