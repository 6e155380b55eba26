"""The contract that every quantizer keeps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.config import QuantizeConfig, RQVAEConfig
from prorec_core.errors import UserError
from prorec_core.progress import Progress
from prorec_core.quantization.quantizer import Floats, Quantizer, check_embeddings, relative_error
from prorec_core.registry import QUANTIZERS

Make = Callable[..., Floats]
Config = Callable[..., QuantizeConfig]


@pytest.fixture(params=sorted(QUANTIZERS))
def method(request: pytest.FixtureRequest) -> type[Quantizer]:
    return QUANTIZERS.load(request.param)


def test_codes_are_tuples_of_known_codes(method: type[Quantizer], clustered: Make, small_config: Config) -> None:
    embeddings = clustered()
    quantizer, codes = method.fit(embeddings, small_config(), seed=0)
    assert codes.shape == (240, 3) and codes.dtype == np.uint16 and codes.max() < 8
    assert quantizer.levels == 3
    assert len(np.unique(codes, axis=0)) > 60
    encoded = quantizer.encode(embeddings)
    assert encoded.shape == codes.shape and encoded.dtype == np.uint16 and encoded.max() < 8


def test_equal_seeds_give_equal_bits_and_others_do_not(
    method: type[Quantizer], clustered: Make, small_config: Config
) -> None:
    embeddings = clustered()
    first, codes = method.fit(embeddings, small_config(), seed=3)
    second, again = method.fit(embeddings.copy(), small_config(), seed=3)
    assert codes.tobytes() == again.tobytes()
    assert {k: v.tobytes() for k, v in first.state().items()} == {k: v.tobytes() for k, v in second.state().items()}
    assert not np.array_equal(codes, method.fit(embeddings, small_config(), seed=4)[1])


def test_each_level_brings_the_reconstruction_nearer(
    method: type[Quantizer], clustered: Make, small_config: Config
) -> None:
    embeddings = clustered()
    rq_vae = RQVAEConfig(epochs=60, batch_size=64, hidden=[32], latent=6, learning_rate=1e-2)
    quantizer, codes = method.fit(embeddings, small_config(rq_vae=rq_vae), seed=0)
    errors = [relative_error(embeddings, quantizer.decode(codes[:, :levels])) for levels in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 0.6 and errors[2] < 0.25


@pytest.mark.parametrize("name", sorted(set(QUANTIZERS) - {"balanced_kmeans"}))
def test_codes_of_the_items_fitted_are_those_that_encoding_finds(
    name: str, clustered: Make, small_config: Config
) -> None:
    """The balanced method apart, which gives codes by capacity."""
    embeddings = clustered()
    quantizer, codes = QUANTIZERS.load(name).fit(embeddings, small_config(), seed=0)
    assert np.array_equal(quantizer.encode(embeddings), codes)


def test_new_items_get_the_codes_of_their_neighbours(
    method: type[Quantizer], clustered: Make, small_config: Config
) -> None:
    embeddings = clustered()
    quantizer, _ = method.fit(embeddings, small_config(), seed=0)
    moved = quantizer.encode(embeddings + np.float32(1e-4))
    same = (moved[:, 0] == quantizer.encode(embeddings)[:, 0]).mean()
    assert same > 0.97
    assert quantizer.encode(embeddings[:1]).shape == (1, 3)
    assert quantizer.encode(embeddings[:0]).shape == (0, 3)


def test_the_state_is_all_there_is_to_it(method: type[Quantizer], clustered: Make, small_config: Config) -> None:
    quantizer, codes = method.fit(clustered(), small_config(), seed=0)
    copy = method.from_state({name: value.copy() for name, value in quantizer.state().items()})
    unseen = clustered(seed=1)
    assert np.array_equal(copy.encode(unseen), quantizer.encode(unseen))
    assert np.array_equal(copy.decode(codes), quantizer.decode(codes))
    assert copy.levels == 3


def test_codes_that_no_item_has_decode_to_something_finite(
    method: type[Quantizer], clustered: Make, small_config: Config
) -> None:
    quantizer, _ = method.fit(clustered(items=5), small_config(), seed=0)
    every = np.array([[a, b, c] for a in range(8) for b in range(8) for c in (0, 7)], dtype=np.uint16)
    assert np.isfinite(quantizer.decode(every)).all()


@pytest.mark.parametrize("items", [1, 2, 7])
def test_fewer_items_than_codes(method: type[Quantizer], clustered: Make, small_config: Config, items: int) -> None:
    embeddings = clustered(items=items)
    quantizer, codes = method.fit(embeddings, small_config(), seed=0)
    assert codes.shape == (items, 3)
    assert len(np.unique(codes, axis=0)) == items
    assert np.isfinite(quantizer.decode(codes)).all()


def test_equal_embeddings(method: type[Quantizer], small_config: Config) -> None:
    embeddings = np.repeat(np.array([[1.5, -2.0], [0.25, 4.0]], dtype=np.float32), 10, axis=0)
    quantizer, codes = method.fit(embeddings, small_config(), seed=0)
    decoded = quantizer.decode(codes)
    assert np.isfinite(decoded).all()
    encoded = quantizer.encode(embeddings)
    assert len(np.unique(encoded, axis=0)) == 2
    if method is not QUANTIZERS.load("rq_vae"):
        np.testing.assert_allclose(decoded, embeddings, atol=1e-6)


def test_all_embeddings_zero(method: type[Quantizer], small_config: Config) -> None:
    embeddings = np.zeros((12, 3), dtype=np.float32)
    quantizer, codes = method.fit(embeddings, small_config(), seed=0)
    assert np.isfinite(quantizer.decode(codes)).all()


def test_progress_is_told_from_first_to_last(method: type[Quantizer], clustered: Make, small_config: Config) -> None:
    told: list[Progress] = []
    method.fit(clustered(), small_config(), 0, told.append)
    assert [progress.step for progress in told] == list(range(1, told[-1].total + 1))
    assert all("relative_error" in progress.metrics for progress in told)
    assert told[-1].metrics["relative_error"] < told[0].metrics["relative_error"]


def test_one_level_of_two_codes(method: type[Quantizer], clustered: Make, small_config: Config) -> None:
    _, codes = method.fit(clustered(), small_config(levels=1, codes=2), seed=0)
    assert codes.shape == (240, 1) and set(codes.ravel().tolist()) == {0, 1}


@given(st.integers(1, 30), st.integers(1, 4), st.integers(2, 9), st.integers(1, 4), st.integers(0, 10_000))
@settings(max_examples=25)
def test_any_small_input_is_quantized(items: int, dims: int, codes: int, levels: int, seed: int) -> None:
    embeddings = np.random.default_rng(seed).integers(-2, 3, (items, dims)).astype(np.float32)
    rq_vae = RQVAEConfig(epochs=1, batch_size=8, hidden=[4], latent=2)
    config = QuantizeConfig(levels=levels, codes=codes, iterations=5, rq_vae=rq_vae)
    for kind in map(QUANTIZERS.load, QUANTIZERS):
        quantizer, found = kind.fit(embeddings, config, seed)
        assert found.shape == (items, levels) and found.max() < codes
        assert np.isfinite(quantizer.decode(found)).all()


def test_embeddings_that_are_not_finite_are_refused() -> None:
    broken = np.zeros((4, 2), dtype=np.float32)
    broken[2, 1] = np.nan
    with pytest.raises(UserError, match=r"1 items hold values that are not finite \(first: item 2\)"):
        check_embeddings(broken)
    with pytest.raises(UserError, match="no embeddings"):
        check_embeddings(np.zeros((0, 2), dtype=np.float32))
