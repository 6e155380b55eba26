"""Tables of more items than are fitted to one by one: cost and memory bounded, quality and bits kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from prorec_core.config import QuantizeConfig, RQVAEConfig
from prorec_core.quantization import kmeans as kmeans_module
from prorec_core.quantization.blocks import LARGE_TABLE, all_cores, pieces
from prorec_core.quantization.collisions import _next_code_costs, _spill, collision_groups, largest_family
from prorec_core.quantization.kmeans import _lloyd, kmeans, sampled_kmeans
from prorec_core.quantization.quantizer import Codes, Floats, level_centroids, nearest, relative_error
from prorec_core.quantization.residual_kmeans import ResidualKMeans
from prorec_core.quantization.rq_vae import RQVAE
from prorec_core.quantization.stage import quantize
from prorec_core.registry import QUANTIZERS

Make = Callable[..., Floats]
Config = Callable[..., QuantizeConfig]
USES_OF_THRESHOLD = ("kmeans", "quantizer", "balanced_kmeans", "rq_vae")


def _cost(points: Floats, centroids: Floats) -> float:
    return float(np.square(points.astype(np.float64) - centroids[nearest(points, centroids)]).sum(1).mean())


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table counts as large, and is dealt with in several pieces."""
    for module in USES_OF_THRESHOLD:
        monkeypatch.setattr(f"prorec_core.quantization.{module}.LARGE_TABLE", 100)
    monkeypatch.setattr(kmeans_module, "_FITTED_TO", 400)
    monkeypatch.setattr(kmeans_module, "_FITTED_A_CLUSTER", 20)
    monkeypatch.setattr(kmeans_module, "_SCORES", 1000)
    monkeypatch.setattr("prorec_core.quantization.balanced_kmeans._FITTED_TO", 500)
    monkeypatch.setattr("prorec_core.quantization.balanced_kmeans._COSTS", 1000)
    monkeypatch.setattr(pieces, "__defaults__", (250,))


@given(st.integers(0, 50), st.integers(1, 20))
def test_pieces_cover_all_rows_once(rows: int, size: int) -> None:
    found = list(pieces(rows, size))
    assert [row for piece in found for row in range(rows)[piece]] == list(range(rows))
    assert all(0 < piece.stop - piece.start <= size for piece in found)


def test_a_sample_costs_about_what_all_points_do(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of one cloud: where there are clusters, what a start finds of them differs more than what is tested here.
    points = np.random.default_rng(0).normal(size=(12_000, 12)).astype(np.float32)
    whole = _cost(points, kmeans(points, 32, 50, seed=0))
    assert _cost(points, sampled_kmeans(points, 32, 50, seed=0)) < 1.01 * whole
    monkeypatch.setattr(kmeans_module, "_FITTED_TO", 4000)
    assert _cost(points, sampled_kmeans(points, 32, 50, seed=0)) < 1.02 * whole
    assert _cost(points, points[:32]) > 1.2 * whole, "centroids that are no means are told apart"


def test_equal_bits_whatever_the_threads(clustered: Make) -> None:
    points = clustered(items=LARGE_TABLE + 1, dims=4)
    with threadpool_limits(limits=3):
        three = kmeans(points, 16, 8, seed=1)
        codes = nearest(points, three)
    with threadpool_limits(limits=1):
        one = kmeans(points, 16, 8, seed=1)
        assert np.array_equal(codes, nearest(points, one))
    assert one.tobytes() == three.tobytes()
    assert one.tobytes() != kmeans(points, 16, 8, seed=2).tobytes()


def test_an_rq_vae_gives_equal_bits_whatever_the_threads_that_share_a_table(
    all_large: None, clustered: Make, small_config: Config
) -> None:
    points = clustered(items=20_000)
    with threadpool_limits(limits=3):
        quantizer, codes = RQVAE.fit(points, small_config(), seed=0)
        decoded = quantizer.decode(codes)
    with threadpool_limits(limits=1):
        again, others = RQVAE.fit(points, small_config(), seed=0)
        assert np.array_equal(codes, others) and decoded.tobytes() == again.decode(codes).tobytes()


def test_few_distinct_points_are_found_however_rare(all_large: None) -> None:
    points = np.zeros((20_000, 3), np.float32)
    points[7], points[12_345] = 1, 2
    assert kmeans(points, 5, 10, seed=0).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    some = np.concatenate([points, np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)])
    found = kmeans(some, 8, 10, seed=0)
    assert found.shape == (8, 3)
    assert np.bincount(nearest(some, found), minlength=8).min() > 0


def test_a_centroid_without_points_goes_to_the_farthest() -> None:
    points = np.concatenate([np.zeros((50, 2)), np.full((50, 2), 9), np.full((50, 2), -5)]).astype(np.float32)
    with all_cores() as share:
        found = _lloyd(points, np.zeros((3, 2), np.float32), 10, share)
    assert sorted(found.tolist()) == [[-5, -5], [0, 0], [9, 9]]


@pytest.mark.parametrize("method", sorted(QUANTIZERS))
def test_every_method_does_as_well_on_a_large_table(
    method: str, clustered: Make, small_config: Config, request: pytest.FixtureRequest
) -> None:
    embeddings, ids = clustered(items=700, dims=8, clusters=30), [str(item) for item in range(700)]
    config = small_config(method=method, iterations=20)
    small = quantize(config, embeddings, ids, seed=0)
    request.getfixturevalue("all_large")
    large = quantize(config, embeddings, ids, seed=0)
    again = quantize(config, embeddings, ids, seed=0)
    assert large.table.codes.tobytes() == again.table.codes.tobytes()
    assert {name: value.tobytes() for name, value in large.codebooks.items()} == {
        name: value.tobytes() for name, value in again.codebooks.items()
    }
    assert len(np.unique(large.table.codes, axis=0)) == 700
    # Two starts of k-means differ by as much on these clusters.
    assert large.quality["relative_error"] < 1.25 * small.quality["relative_error"] + 1e-3
    if method == "balanced_kmeans":
        assert max(level["largest_group"] for level in large.quality["levels"][:3]) <= -(-700 // 8)


def test_figures_in_pieces_are_those_of_the_whole(clustered: Make, all_large: None) -> None:
    points, codes = clustered(items=1000), np.random.default_rng(0).integers(0, 5, (1000, 2)).astype(np.uint16)
    found = level_centroids(points, codes, 5)
    left = points.astype(np.float64)
    for level in range(2):
        means = np.stack([left[codes[:, level] == code].mean(0) for code in range(5)])
        np.testing.assert_allclose(found[level], means, atol=1e-6)
        left -= means[codes[:, level]]
    variance = np.square(points - points.mean(0, dtype=np.float64)).sum()
    expected = np.square(left).sum() / variance
    assert relative_error(points, (points - left).astype(np.float32)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["residual_kmeans", "rq_vae"])
def test_memory_of_many_items_is_that_of_a_few_copies_of_the_embeddings(method: str) -> None:
    items, dims = 200_000, 32
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(500, dims)).astype(np.float32)[random.integers(0, 500, items)]
    embeddings += random.normal(size=(items, dims)).astype(np.float32)
    rq_vae = RQVAEConfig(epochs=1, hidden=[16], latent=8)
    config = QuantizeConfig(method=method, levels=2, codes=64, iterations=2, rq_vae=rq_vae)
    ids = [str(item) for item in range(items)]
    tracemalloc.start()
    try:
        found = quantize(config, embeddings, ids, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.table.codes.shape == (items, 3)
    assert peak < 5 * embeddings.nbytes


def test_costs_of_many_items_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    decoder = ResidualKMeans([random.normal(size=(6, 3)).astype(np.float32) for _ in range(3)])
    prefixes = random.integers(0, 6, (200, 2)).astype(np.uint16)
    embeddings = random.normal(size=(200, 3)).astype(np.float32)
    one_by_one = _next_code_costs(prefixes, embeddings, 6, decoder.decode)
    monkeypatch.setattr("prorec_core.quantization.collisions._ONE_BY_ONE", 0)
    np.testing.assert_allclose(_next_code_costs(prefixes, embeddings, 6, decoder.decode), one_by_one, atol=1e-9)


@given(st.integers(0, 10_000))
def test_groups_are_numbered_in_the_order_of_their_codes(seed: int) -> None:
    random = np.random.default_rng(seed)
    codes: Codes = random.choice([0, 1, 2, 255, 256, 65_535], (random.integers(1, 30), random.integers(1, 6)))
    expected = np.unique(codes.astype(np.uint16), axis=0, return_inverse=True)[1].reshape(-1)
    assert np.array_equal(collision_groups(codes.astype(np.uint16)), expected)
    assert collision_groups(codes[:, :0].astype(np.uint16)).tolist() == [0] * len(codes)


@given(st.integers(2, 6), st.integers(2, 5), st.booleans(), st.integers(0, 10_000))
@settings(max_examples=200)
def test_the_surplus_moves_as_one_by_one(n_codes: int, capacity: int, ties: bool, seed: int) -> None:
    """Against looking for the cheapest move among all items again and again."""
    random = np.random.default_rng(seed)
    own = np.minimum(random.geometric(0.5, random.integers(1, n_codes * capacity + 1)) - 1, n_codes - 1)
    size = np.bincount(own, minlength=n_codes)
    own = own[size[own] > capacity]
    costs = random.integers(0, 4, (len(own), n_codes)) if ties else random.random((len(own), n_codes))
    costs = costs.astype(np.float64)
    expected, room = own.copy(), size.copy()
    while (room > capacity).any():
        moves = [
            (costs[item, code] - costs[item, own[item]], item, code)
            for item in range(len(own))
            for code in range(n_codes)
            if expected[item] == own[item] and room[own[item]] > capacity and room[code] < capacity
        ]
        _, item, code = min(moves)
        room[own[item]] -= 1
        room[code] += 1
        expected[item] = code
    assert np.array_equal(_spill(own, costs.copy(), size, capacity), expected)


def test_a_thousand_items_at_most_share_a_tuple_before_the_suffix(small_config: Config) -> None:
    embeddings = np.zeros((6000, 2), np.float32)
    embeddings[5000:] = np.random.default_rng(0).normal(size=(1000, 2))
    found = quantize(small_config(levels=2), embeddings, [str(item) for item in range(6000)], seed=0)
    families = np.unique(found.table.codes[:, :2], axis=0, return_counts=True)[1]
    assert families.max() == 1024
    assert found.table.codes[:, 2].max() == 1023
    assert len(np.unique(found.table.codes, axis=0)) == 6000
    assert 5000 - 1024 <= found.quality["collisions"]["moved"] < 5000
    assert found.quality["collisions"]["before"]["largest_group"] >= 5000


@pytest.mark.parametrize(
    ("items", "codes", "levels", "expected"),
    [(10, 8, 1, 1024), (1000, 2000, 2, 2000), (100_000, 2, 4, 6250), (10**9, 256, 3, 1024)],
)
def test_the_largest_family(items: int, codes: int, levels: int, expected: int) -> None:
    assert largest_family(items, codes, levels) == expected


def test_more_alike_items_than_tuples_fill_their_families_evenly(small_config: Config) -> None:
    config = small_config(levels=1, codes=2)
    embeddings: npt.NDArray[np.float32] = np.ones((5000, 2), np.float32)
    found = quantize(config, embeddings, [str(item) for item in range(5000)], seed=0)
    assert np.bincount(found.table.codes[:, 0]).tolist() == [2500, 2500]
