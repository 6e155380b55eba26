"""What is particular to one quantizer, and the parts that they share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits

from prorec_core.config import QuantizeConfig, RQVAEConfig
from prorec_core.progress import Progress
from prorec_core.quantization.balanced_kmeans import BalancedKMeans, assign
from prorec_core.quantization.hierarchical_kmeans import HierarchicalKMeans
from prorec_core.quantization.kmeans import kmeans
from prorec_core.quantization.quantizer import (
    Floats,
    group_means,
    level_centroids,
    nearest,
    relative_error,
    squared_distances,
)
from prorec_core.quantization.residual_kmeans import ResidualKMeans
from prorec_core.quantization.rq_vae import RQVAE, _Network, _train

Make = Callable[..., Floats]
Config = Callable[..., QuantizeConfig]


def test_kmeans_finds_planted_clusters() -> None:
    random = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
    points = (np.repeat(centres, 30, axis=0) + random.normal(size=(90, 2)) * 0.1).astype(np.float32)
    found = kmeans(points, 3, 20, seed=0)
    assert sorted(nearest(found, centres).tolist()) == [0, 1, 2]
    np.testing.assert_allclose(found, centres[nearest(found, centres)], atol=0.1)


def test_kmeans_of_few_distinct_points_is_these_points() -> None:
    points = np.array([[3, 1], [0, 0], [3, 1], [-0.0, 0]], dtype=np.float32)
    assert kmeans(points, 5, 10, seed=0).tolist() == [[3, 1], [0, 0]]


def test_kmeans_gives_equal_bits_whatever_the_threads(clustered: Make) -> None:
    points = clustered(items=2000)
    with threadpool_limits(limits=2):
        two = kmeans(points, 16, 20, seed=1)
    with threadpool_limits(limits=1):
        one = kmeans(points, 16, 20, seed=1)
    assert one.tobytes() == two.tobytes()


def test_distances_means_and_nearest_are_what_they_say(clustered: Make) -> None:
    points, centroids = clustered(items=50), clustered(items=7, seed=2)
    expected = ((points[:, None].astype(float) - centroids[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared_distances(points, centroids), expected, atol=1e-9)
    group = nearest(points, centroids)
    assert np.array_equal(group, expected.argmin(1))
    means = group_means(points, group, 8)
    for number in range(8):
        members = points[group == number].astype(float)
        np.testing.assert_allclose(means[number], members.mean(0) if len(members) else 0, atol=1e-12)


def test_the_nearest_of_equal_centroids_is_the_first() -> None:
    assert nearest(np.zeros((1, 2), np.float32), np.ones((3, 2), np.float32)).tolist() == [0]


def test_residual_kmeans_decodes_to_the_sum_of_its_codebooks(clustered: Make, small_config: Config) -> None:
    quantizer, codes = ResidualKMeans.fit(clustered(), small_config(), seed=0)
    total = sum(book[code] for book, code in zip(quantizer.codebooks, codes.T, strict=True))
    np.testing.assert_allclose(quantizer.decode(codes), total, atol=1e-6)


def test_level_centroids_of_residual_kmeans_are_its_codebooks(clustered: Make, small_config: Config) -> None:
    embeddings = clustered(items=400)
    quantizer, codes = ResidualKMeans.fit(embeddings, small_config(iterations=300), seed=0)
    found = level_centroids(embeddings, codes, 8)
    np.testing.assert_allclose(found[0], quantizer.codebooks[0], atol=1e-4)
    summed = sum(centroids[code] for centroids, code in zip(found, codes.T, strict=True))
    exact = relative_error(embeddings, quantizer.decode(codes))
    assert relative_error(embeddings, np.asarray(summed)) == pytest.approx(exact, rel=0.02)


def test_level_centroids_of_unused_codes_are_zero(clustered: Make) -> None:
    embeddings = clustered(items=6)
    centroids = level_centroids(embeddings, np.full((6, 1), 2, dtype=np.uint16), 4)
    assert centroids[0].shape == (4, 6) and centroids[0].dtype == np.float32
    np.testing.assert_allclose(centroids[0][2], embeddings.mean(0), atol=1e-6)
    assert not centroids[0][[0, 1, 3]].any()


@given(st.integers(1, 60), st.integers(2, 9), st.integers(1, 3), st.booleans(), st.integers(0, 10_000))
@settings(max_examples=40)
def test_balanced_codes_are_given_to_equally_many(items: int, codes: int, levels: int, equal: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    points = np.ones((items, 3)) if equal else random.normal(size=(items, 3)) * random.uniform(0, 9, (items, 1))
    config = QuantizeConfig(levels=levels, codes=codes, iterations=5)
    _, found = BalancedKMeans.fit(points.astype(np.float32), config, seed)
    for level in found.T:
        assert np.bincount(level, minlength=codes).max() <= -(-items // codes)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 3), st.integers(0, 10_000))
@settings(max_examples=60)
def test_assignment_keeps_capacities(points: int, clusters: int, spare: int, seed: int) -> None:
    costs = np.random.default_rng(seed).exponential(size=(points, clusters)) ** 4
    capacity = -(-points // clusters) + spare
    found = assign(costs, capacity)
    assert found.min() >= 0 and np.bincount(found).max() <= capacity


def test_assignment_is_near_the_optimum(clustered: Make) -> None:
    points = clustered(items=600, clusters=20)
    costs = squared_distances(points, kmeans(points, 12, 20, seed=0))
    found = assign(costs, 50)
    rows, columns = linear_sum_assignment(np.repeat(costs, 50, axis=1))
    best = costs[rows, columns // 50].sum()
    unbalanced = costs.min(axis=1).sum()
    assert unbalanced < best
    assert costs[np.arange(600), found].sum() <= 1.02 * best


def test_a_cluster_of_the_hierarchy_is_split_among_the_levels_left(clustered: Make) -> None:
    embeddings = clustered(items=500)
    _, codes = HierarchicalKMeans.fit(embeddings, QuantizeConfig(levels=3, codes=8), seed=0)
    largest = np.bincount(codes[:, 0]).max()
    assert len(np.unique(codes[:, 0])) == 8
    assert codes[:, 1].max() + 1 <= np.ceil(np.sqrt(largest))
    deep = HierarchicalKMeans.fit(embeddings, QuantizeConfig(levels=2, codes=500), seed=0)[1]
    assert len(np.unique(deep, axis=0)) == 500


def test_a_path_that_does_not_exist_stands_for_its_last_cluster(clustered: Make) -> None:
    embeddings = clustered(items=30)
    quantizer, codes = HierarchicalKMeans.fit(embeddings, QuantizeConfig(levels=2, codes=4), seed=0)
    beyond = codes.copy()
    beyond[:, 1] = 60_000
    assert np.array_equal(quantizer.decode(beyond), quantizer.decode(codes[:, :1]))


def test_rq_vae_revives_codes_that_nothing_is_near_to(clustered: Make) -> None:
    inputs = torch.from_numpy(clustered(items=400))
    torch.manual_seed(0)
    far = [torch.full((16, 4), 1e3) for _ in range(2)]
    network = _Network([6, 16, 4], far)
    config = QuantizeConfig(levels=2, codes=16, rq_vae=RQVAEConfig(epochs=8, batch_size=100))
    with torch.no_grad():
        before = network.codes(network.encoder(inputs))
    told: list[Progress] = []
    _train(network, inputs, config, 0, told.append)
    with torch.no_grad():
        after = network.codes(network.encoder(inputs))
    assert [len(level.unique()) for level in before.T] == [1, 1]
    assert min(len(level.unique()) for level in after.T) >= 12
    assert told[-1].metrics["used_share"] > told[0].metrics["used_share"]


def test_rq_vae_leaves_the_global_random_state_alone(clustered: Make, small_config: Config) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    RQVAE.fit(clustered(), small_config(), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_rq_vae_gives_equal_bits_whatever_the_threads_and_leaves_them_as_they_were(
    clustered: Make, small_config: Config
) -> None:
    before = torch.get_num_threads()
    states = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            quantizer, _ = RQVAE.fit(clustered(items=2000, dims=32), small_config(), seed=0)
            states.append([value.tobytes() for value in quantizer.state().values()])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert states[0] == states[1]


def test_rq_vae_stands_inputs_of_any_scale(clustered: Make, small_config: Config) -> None:
    embeddings = clustered() * np.float32(1000) + np.float32(500)
    embeddings[:, 0] = 7
    quantizer, codes = RQVAE.fit(embeddings, small_config(), seed=0)
    decoded = quantizer.decode(codes)
    assert relative_error(embeddings, decoded) < 1
    assert np.isfinite(decoded).all()
