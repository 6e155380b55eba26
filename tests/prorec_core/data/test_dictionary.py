from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.data import dictionary
from prorec_core.data.dictionary import NONE, Dictionary

batches = st.lists(st.lists(st.none() | st.text(max_size=2) | st.text("ab", max_size=20), max_size=20), max_size=6)


class Clashing(Dictionary):
    """A dictionary in which most texts have the same hash as others."""

    def _hashed(self, texts: pl.Series) -> np.ndarray:
        return texts.str.len_bytes().cast(pl.UInt64).to_numpy() % np.uint64(3)


@pytest.fixture(params=[2, 1 << 16], autouse=True)
def least(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the table grows or not, the numbers are the same."""
    monkeypatch.setattr(dictionary, "_LEAST", request.param)


@pytest.mark.parametrize("kind", [Dictionary, Clashing])
@settings(deadline=None)
@given(batches)
def test_equal_texts_have_one_number_and_others_another(kind: type[Dictionary], given: list[list[str | None]]) -> None:
    found = kind()
    numbers: dict[str, int] = {}
    for batch in given:
        for text, number in zip(batch, found.numbers(pl.Series(batch, dtype=pl.String)).tolist(), strict=True):
            assert number == (NONE if text is None else numbers.setdefault(text, number))
    assert sorted(numbers.values()) == list(range(len(found)))
    assert found.texts(np.array(list(numbers.values()), np.int64)).to_list() == list(numbers)


def test_many_threads_number_alike() -> None:
    texts = pl.Series(np.random.default_rng(0).integers(0, 30_000, 200_000)).cast(pl.String)
    found = Dictionary()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(found.numbers, [texts[start : start + 997] for start in range(0, len(texts), 997)]))
    assert found.texts(np.concatenate(parts)).equals(texts) and len(found) == texts.n_unique()
