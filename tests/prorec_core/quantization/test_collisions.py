from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.errors import UserError
from prorec_core.quantization.collisions import add_suffix, collision_groups, reassign
from prorec_core.quantization.quantizer import Codes, Floats
from prorec_core.quantization.residual_kmeans import ResidualKMeans


@st.composite
def tables(draw: st.DrawFn, at_most_tuples: bool = False) -> tuple[Codes, int]:
    """Codes with collisions, and how many codes a level has."""
    levels, codes = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    most = min(40, codes**levels) if at_most_tuples else 40
    row = st.tuples(*[st.integers(0, codes - 1)] * levels)
    rows = draw(st.lists(row, min_size=1, max_size=most))
    return np.array(rows, dtype=np.uint16), codes


def embeddings_and_decoder(codes: Codes, n_codes: int, seed: int) -> tuple[Floats, ResidualKMeans]:
    random = np.random.default_rng(seed)
    books = [random.normal(size=(n_codes, 3)).astype(np.float32) / (level + 1) for level in range(codes.shape[1])]
    decoder = ResidualKMeans(books)
    return decoder.decode(codes) + random.normal(size=(len(codes), 3)).astype(np.float32) * 0.1, decoder


def shared(codes: Codes) -> int:
    """How many items have to move so that no two share their tuple."""
    return len(codes) - len(np.unique(codes, axis=0))


@given(tables())
@settings(max_examples=60)
def test_a_suffix_makes_tuples_unique_and_keeps_the_codes(table: tuple[Codes, int]) -> None:
    codes, _ = table
    longer = add_suffix(codes)
    assert longer.dtype == np.uint16 and longer.shape == (len(codes), codes.shape[1] + 1)
    assert np.array_equal(longer[:, :-1], codes)
    assert shared(longer) == 0
    met: Counter[tuple[int, ...]] = Counter()
    for row, suffix in zip(codes.tolist(), longer[:, -1].tolist(), strict=True):
        assert suffix == met[tuple(row)]
        met[tuple(row)] += 1


def test_a_group_too_large_for_a_suffix_is_refused() -> None:
    assert add_suffix(np.zeros((65_535, 1), np.uint16))[-1, 1] == 65_534
    with pytest.raises(UserError, match="65536 items share all their codes"):
        add_suffix(np.zeros((65_536, 1), np.uint16))


@given(tables(at_most_tuples=True), st.integers(0, 10_000))
@settings(max_examples=120)
def test_reassigning_makes_tuples_unique(table: tuple[Codes, int], seed: int) -> None:
    codes, n_codes = table
    embeddings, decoder = embeddings_and_decoder(codes, n_codes, seed)
    found = reassign(codes, embeddings, n_codes, decoder.decode)
    assert found.dtype == np.uint16 and found.shape == codes.shape
    assert found.max() < n_codes
    assert shared(found) == 0
    if shared(codes) == 0:
        assert np.array_equal(found, codes)
    assert np.array_equal(found, reassign(codes, embeddings, n_codes, decoder.decode))


@given(tables(at_most_tuples=True), st.integers(0, 10_000))
@settings(max_examples=120)
def test_reassigning_moves_no_more_than_it_must(table: tuple[Codes, int], seed: int) -> None:
    codes, n_codes = table
    embeddings, decoder = embeddings_and_decoder(codes, n_codes, seed)
    found = reassign(codes, embeddings, n_codes, decoder.decode)
    moved = (found != codes).any(axis=1)
    crowded = np.bincount(collision_groups(codes[:, :-1])).max() > n_codes
    if not crowded:
        assert moved.sum() == shared(codes)
        assert np.array_equal(found[:, :-1], codes[:, :-1])
    alone = np.bincount(collision_groups(codes))[collision_groups(codes)] == 1
    if not crowded:
        assert not moved[alone].any()


@given(st.integers(2, 5), st.integers(0, 10_000))
@settings(max_examples=60)
def test_reassigning_loses_the_least_distance(items: int, seed: int) -> None:
    """All of one tuple: against every way of giving them distinct codes that moves as few."""
    codes = np.zeros((items, 1), np.uint16)
    embeddings, decoder = embeddings_and_decoder(codes, 5, seed)
    found = reassign(codes, embeddings, 5, decoder.decode)
    cost = ((embeddings[:, None].astype(float) - decoder.codebooks[0][None]) ** 2).sum(-1)
    ways = [way for way in product(range(5), repeat=items) if len(set(way)) == items and 0 in way]
    best = min(sum(cost[item, code] for item, code in enumerate(way)) for way in ways)
    assert cost[np.arange(items), found[:, 0]].sum() == pytest.approx(best)


def test_the_surplus_of_a_full_prefix_goes_to_the_nearest_other_one() -> None:
    """Three items want prefix 0, which holds two; the one at 0.9 is nearest to prefix 1 (at 2), not to 2 (at 9)."""
    decoder = ResidualKMeans([np.array([[0], [2], [9]], np.float32), np.array([[-0.4], [0.4]], np.float32)])
    codes = np.array([[0, 1], [0, 1], [0, 0]], dtype=np.uint16)
    embeddings = np.array([[0.3], [0.9], [-0.3]], dtype=np.float32)
    assert reassign(codes, embeddings, 2, decoder.decode).tolist() == [[0, 1], [1, 0], [0, 0]]


def test_as_many_equal_items_as_tuples_fill_all_of_them() -> None:
    codes = np.zeros((27, 3), dtype=np.uint16)
    embeddings, decoder = embeddings_and_decoder(codes, 3, seed=0)
    found = reassign(codes, np.repeat(embeddings[:1], 27, axis=0), 3, decoder.decode)
    assert sorted(map(tuple, found.tolist())) == list(product(range(3), repeat=3))


def test_more_items_than_tuples_are_refused_with_a_cure() -> None:
    with pytest.raises(UserError, match=r"5 items cannot each have their own of 2\^2 tuples.*quantize.codes"):
        codes = np.zeros((5, 2), dtype=np.uint16)
        reassign(codes, np.zeros((5, 1), np.float32), 2, lambda found: np.zeros((len(found), 1), np.float32))
