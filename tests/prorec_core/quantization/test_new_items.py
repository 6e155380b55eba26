from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.config import QuantizeConfig
from prorec_core.errors import UserError
from prorec_core.quantization.collisions import add_suffix, free_beside, suffix_beside
from prorec_core.quantization.quantized import Quantized
from prorec_core.quantization.quantizer import Codes, Floats
from prorec_core.quantization.stage import fitted_quantizer, quantize, with_new
from prorec_core.registry import QUANTIZERS

Make = Callable[..., Floats]
Config = Callable[..., QuantizeConfig]
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=9)


def table(rows: list[tuple[int, ...]]) -> Codes:
    return np.array(rows, np.uint16)


def points(codes: Codes) -> Floats:
    """A quantizer whose codes are digits: what the first l stand for is the number that they write."""
    digits = np.zeros((len(codes), 2))
    digits[:, : codes.shape[1]] = codes
    return (digits @ [[3.0], [1.0]]).astype(np.float32)


@given(ROWS, ROWS, st.sets(st.integers(0, 8)))
def test_the_suffix_is_one_that_is_free(
    known: list[tuple[int, int]], new: list[tuple[int, int]], gone: set[int]
) -> None:
    # Items that went since the suffixes were given leave gaps.
    old = np.delete(add_suffix(table(known)), [row for row in gone if row < len(known)], axis=0)
    found = suffix_beside(table(new), old)
    assert np.array_equal(found[:, :-1], table(new))
    together = np.concatenate([old, found])
    assert len(np.unique(together, axis=0)) == len(together)
    for row in found:
        before = (old[:, :-1] == row[:-1]).all(axis=1).sum()
        assert row[-1] < before + len(new)


@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6), st.data())
def test_taken_tuples_give_way_to_free_ones(known: set[tuple[int, int]], data: st.DataObject) -> None:
    new = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=9 - len(known)))
    old, wanted = table(sorted(known)), table(new)
    found = free_beside(wanted, points(wanted), old, 3, points)
    together = np.concatenate([old, found])
    assert len(np.unique(together, axis=0)) == len(together)
    assert found.max() < 3
    assert new[0] in known or tuple(found[0].tolist()) == new[0]


def test_the_nearest_free_tuple_is_taken() -> None:
    known = table([(1, 1), (1, 2)])
    assert free_beside(table([(1, 1)]), points(table([(1, 1)])), known, 3, points).tolist() == [[1, 0]]
    full = table([(1, 0), (1, 1), (1, 2)])
    # Nothing is left below 1, which stands for 3: of its siblings, 6 is nearer to 4 than 0.
    assert free_beside(table([(1, 1)]), points(table([(1, 1)])), full, 3, points).tolist() == [[2, 0]]
    with pytest.raises(UserError, match="10 items cannot each have their own of 3\\^2"):
        free_beside(table([(0, 0)] * 7), points(table([(0, 0)] * 7)), full, 3, points)


@given(ROWS, st.integers(1, 4), st.data())
def test_a_family_grows_no_larger_than_it_may(known: list[tuple[int, int]], family: int, data: st.DataObject) -> None:
    old = table(known[: 9 * family - 1])
    new = data.draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=9 * family - len(old), min_size=1)
    )
    together = np.concatenate([old, found := free_beside(table(new), points(table(new)), old, 3, points, family)])
    before = np.unique(old, axis=0, return_counts=True)[1].max()
    assert np.unique(together, axis=0, return_counts=True)[1].max() <= max(family, before)
    for row, wanted in enumerate(table(new)):
        there = (together[: len(old) + row] == wanted).all(axis=1).sum()
        assert there >= family or np.array_equal(found[row], wanted), "who has room stays"


def test_two_thousand_new_items_that_are_alike_do_not_become_one_family(small_config: Config) -> None:
    embeddings = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    alone = quantize(small_config(), embeddings, [f"i{item}" for item in range(300)], seed=0)
    new = with_new(alone, small_config(), embeddings[[0] * 2000], [f"n{item}" for item in range(2000)]).new_items
    assert new is not None
    everything = np.concatenate([alone.table.codes, new.codes])
    assert np.unique(everything[:, :3], axis=0, return_counts=True)[1].max() == 1024
    assert len(np.unique(everything, axis=0)) == 2300


@pytest.mark.parametrize("collisions", ["suffix", "reassign"])
@pytest.mark.parametrize("method", sorted(QUANTIZERS))
def test_new_items_get_codes_beside_which_nothing_changes(
    method: str, collisions: str, clustered: Make, small_config: Config, tmp_path: Path
) -> None:
    config = small_config(method=method, collisions=collisions)
    embeddings, new = clustered(), clustered(items=40, seed=1)
    new[:10] = embeddings[:10]
    new[10:15] = new[15:20]
    alone = quantize(config, embeddings, [f"i{item}" for item in range(240)], seed=0)
    found = with_new(alone, config, new, [f"n{item}" for item in range(40)])
    assert found.table is alone.table
    assert found.codebooks is alone.codebooks
    assert found.new_items is not None
    everything = found.all_items()
    assert everything.item_ids == [*alone.table.item_ids, *found.new_items.item_ids]
    assert np.array_equal(everything.codes[:240], alone.table.codes)
    assert everything.codes.dtype == np.uint16
    assert len(np.unique(everything.codes, axis=0)) == 280
    nearest = fitted_quantizer(alone).encode(new)
    as_found = (found.new_items.codes[:, :3] == nearest).all(axis=1)
    if collisions == "suffix":
        assert as_found.all()
    else:
        taken = {tuple(codes) for codes in alone.table.codes.tolist()}
        assert all(as_found[row] or tuple(nearest[row].tolist()) in taken for row in (0, 1, 2))
    found.save(tmp_path)
    again = Quantized.load(tmp_path)
    assert again.new_items is not None
    assert np.array_equal(again.new_items.codes, found.new_items.codes)


def test_without_new_items_there_is_no_trace(clustered: Make, small_config: Config, tmp_path: Path) -> None:
    found = quantize(small_config(), clustered(), [f"i{item}" for item in range(240)], seed=0)
    found.save(tmp_path)
    assert found.all_items() is found.table
    assert not (tmp_path / "new_codes.parquet").exists()
    assert Quantized.load(tmp_path).new_items is None
