"""Balanced residual k-means: at every level each code goes to nearly as many items as every other.

Lloyd's algorithm with a capacity on each cluster. The assignment under capacities is a transportation problem,
solved through the prices of its entropic relaxation (Sinkhorn; Cuturi, 2013), annealed, then rounded. Knows
embeddings and codes; knows nothing of items or files.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from prorec_core.config import QuantizeConfig
from prorec_core.quantization.blocks import LARGE_TABLE, pieces
from prorec_core.quantization.kmeans import kmeans, sample
from prorec_core.quantization.quantizer import Floats, group_means, squared_distances
from prorec_core.quantization.residual_kmeans import ResidualKMeans

_TEMPERATURES = (0.5, 0.2, 0.1, 0.05)
"""Of the relaxation, in units of the mean distance to the nearest centroid; colder than the last, rounding
errors of the scaling outweigh what is won (within 0.6% of the optimum in trials)."""
_SCALINGS = 30
_LEAST_GAIN = 1e-3
_FITTED_TO = 16_384
_FITTED_A_CODE = 64
"""Items that a large table is fitted to: as many a code, and at least so many."""
_COSTS = 1 << 24
"""Costs of a piece of the points, at most: 128 MiB in float64."""


class BalancedKMeans(ResidualKMeans):
    """Residual k-means in which no code of a level has more than ceil(N / K) of the items that it was fitted to.

    New items are encoded by nearness alone. Of a large table, centroids and the prices of codes are found on a sample;
    the capacities then hold for all items.
    """

    @classmethod
    def _fit_level(cls, left_ND: Floats, config: QuantizeConfig, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        clusters = min(config.codes, len(left_ND))
        if len(left_ND) <= LARGE_TABLE:
            return _fit(left_ND, clusters, config.iterations, seed)
        drawn_MD = sample(left_ND, max(_FITTED_TO, _FITTED_A_CODE * clusters), seed)
        centroids, _ = _fit(drawn_MD, clusters, config.iterations, seed)
        with threadpool_limits(limits=1):
            gains = _gains(squared_distances(drawn_MD, centroids).astype(np.float32))

            def costs_of(rows: npt.NDArray[np.int64]) -> Floats:
                return squared_distances(left_ND[rows], centroids).astype(np.float32) - gains

            codes = _round(costs_of, len(left_ND), clusters, -(-len(left_ND) // clusters))
        return _means(left_ND, codes, centroids), codes


def _fit(points_ND: Floats, clusters: int, iterations: int, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Centroids of clusters of nearly equal size, and the points' clusters."""
    centroids = kmeans(points_ND, clusters, iterations, seed)
    # Equal points must spread over several clusters; these start at the same place.
    centroids = centroids[np.arange(clusters) % len(centroids)]
    capacity = -(-len(points_ND) // clusters)
    codes, cost = np.zeros(0, np.int64), np.inf
    with threadpool_limits(limits=1):
        for _ in range(iterations):
            distances = squared_distances(points_ND, centroids)
            found = assign(distances, capacity)
            found_cost = float(distances[np.arange(len(found)), found].sum())
            if found_cost >= cost:
                break
            settled = cost - found_cost < _LEAST_GAIN * cost
            codes, cost = found, found_cost
            if settled:
                break
            centroids = _means(points_ND, codes, centroids)
    return _means(points_ND, codes, centroids), codes


def _means(points_ND: Floats, codes_N: npt.NDArray[np.int64], centroids_KD: Floats) -> Floats:
    """Mean of each cluster's points; an empty one keeps its centroid."""
    empty = np.bincount(codes_N, minlength=len(centroids_KD)) == 0
    means = group_means(points_ND, codes_N, len(centroids_KD))
    means[empty] = centroids_KD[empty]
    return means.astype(np.float32)


def assign(distances_NK: npt.NDArray[np.float64], capacity: int) -> npt.NDArray[np.int64]:
    """Give each point a cluster, none more than `capacity` points, at nearly the least total distance.

    Args:
        distances_NK: cost of each point in each cluster, non-negative; `capacity` * K must be at least N.

    Returns:
        Cluster of each point, shape (N,).
    """
    closest: npt.NDArray[np.int64] = distances_NK.argmin(axis=1)
    if np.bincount(closest).max() <= capacity:
        return closest
    costs = distances_NK.astype(np.float32)
    costs -= _gains(costs)
    return _round(lambda rows: costs[rows], len(costs), costs.shape[1], capacity)


def _gains(costs_NK: Floats) -> Floats:
    """What each cluster adds to its attraction so that all are wanted about equally, shape (K,)."""
    n_points, n_clusters = costs_NK.shape
    unit = max(float(costs_NK.min(axis=1).mean()), 1e-6 * float(costs_NK.mean()), 1e-30)
    gains: Floats = np.zeros(n_clusters, dtype=np.float32)
    share = np.float32(n_points / n_clusters)
    for temperature in _TEMPERATURES:
        logits = (gains - costs_NK) / np.float32(temperature * unit)
        logits -= logits.max(axis=1, keepdims=True)
        kernel = np.exp(logits, out=logits)
        scale = np.ones(n_clusters, dtype=np.float32)
        for _ in range(_SCALINGS):
            wanted = scale * (kernel.T @ (1 / np.maximum(kernel @ scale, 1e-30)))
            scale *= np.clip(share / np.maximum(wanted, 1e-20), 1e-6, 1e6)
            scale /= scale.max()
            np.maximum(scale, 1e-20, out=scale)
        gains += np.float32(temperature * unit) * np.log(scale)
    return gains


def _round(
    costs_of: Callable[[npt.NDArray[np.int64]], Floats], n_points: int, n_clusters: int, capacity: int
) -> npt.NDArray[np.int64]:
    """Each point to its cheapest cluster; where too many want one, those stay who would lose most elsewhere.

    `costs_of`: the costs of some points in each cluster, a new array of shape (points, K).
    """
    room = np.full(n_clusters, capacity)
    found = np.full(n_points, -1)
    waiting = np.arange(n_points)
    while len(waiting):
        choice = np.empty(len(waiting), np.int64)
        regret = np.zeros(len(waiting), np.float32)
        for piece in pieces(len(waiting), max(1, _COSTS // n_clusters)):
            offers = costs_of(waiting[piece])
            offers[:, room == 0] = np.inf
            rows = np.arange(len(offers))
            choice[piece] = offers.argmin(axis=1)
            cheapest = offers[rows, choice[piece]]
            offers[rows, choice[piece]] = np.inf
            if n_clusters > 1:
                regret[piece] = offers.min(axis=1) - cheapest
        order = np.lexsort((-regret, choice))
        queue = choice[order]
        rank = np.arange(len(waiting)) - np.searchsorted(queue, queue)
        served = order[rank < room[queue]]
        found[waiting[served]] = choice[served]
        room -= np.bincount(choice[served], minlength=n_clusters)
        waiting = np.delete(waiting, served)
    return found
