from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prorec_core.artifacts import sha256_file, write_parquet
from prorec_core.config import QuantizeConfig
from prorec_core.errors import UserError
from prorec_core.generation.trie import CodeTrie
from prorec_core.quantization.quality import collision_quality, level_quality
from prorec_core.quantization.quantized import CodeTable, Quantized
from prorec_core.quantization.quantizer import Floats
from prorec_core.quantization.residual_kmeans import ResidualKMeans
from prorec_core.quantization.stage import fitted_quantizer, quantize
from prorec_core.registry import QUANTIZERS

Make = Callable[..., Floats]
Config = Callable[..., QuantizeConfig]


def ids(items: int) -> list[str]:
    return [f"i{item}" for item in range(items)]


@pytest.mark.parametrize("collisions", ["suffix", "reassign"])
@pytest.mark.parametrize("method", sorted(QUANTIZERS))
def test_every_item_ends_with_its_own_tuple(
    method: str, collisions: str, clustered: Make, small_config: Config
) -> None:
    embeddings = clustered()
    embeddings[:5] = embeddings[5:10]
    config = small_config(method=method, collisions=collisions)
    found = quantize(config, embeddings, ids(240), seed=0)
    assert found.table.codes.shape == (240, 4 if collisions == "suffix" else 3)
    assert CodeTrie.from_codes(found.table.codes).n_items == 240
    quality = found.quality
    assert quality["collisions"]["after"] == {"items": 0, "share": 0.0, "tuples": 240, "largest_group": 1}
    assert [level["suffix"] for level in quality["levels"]] == [False] * 3 + [True] * (collisions == "suffix")
    for level, figures in enumerate(quality["levels"]):
        usage = np.bincount(found.table.codes[:, level], minlength=figures["codes"])
        assert figures["usage"] == usage.tolist()
    assert [centroids.shape for centroids in found.level_centroids] == [(8, 6)] * 3
    if collisions == "suffix":
        assert quality["collisions"]["moved"] == 0
    elif method != "balanced_kmeans":
        # Equal embeddings have equal codes as found, so that at least one of each pair has to move.
        assert quality["collisions"]["moved"] >= 5


@pytest.mark.parametrize("method", sorted(QUANTIZERS))
def test_what_is_saved_is_what_is_loaded_and_equal_runs_leave_equal_bytes(
    method: str, clustered: Make, small_config: Config, tmp_path: Path
) -> None:
    config = small_config(method=method)
    for name in ("first", "second"):
        quantize(config, clustered(), ids(240), seed=0).save(tmp_path / name)
    names = ["codebooks.safetensors", "codes.parquet", "quality.json"]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == names
    for name in names:
        assert sha256_file(tmp_path / "first" / name) == sha256_file(tmp_path / "second" / name)
    found, loaded = quantize(config, clustered(), ids(240), seed=0), Quantized.load(tmp_path / "first")
    assert np.array_equal(loaded.table.codes, found.table.codes) and loaded.table.item_ids == ids(240)
    assert loaded.quality == found.quality
    unseen = clustered(seed=1)
    assert np.array_equal(fitted_quantizer(loaded).encode(unseen), fitted_quantizer(found).encode(unseen))
    for one, other in zip(loaded.level_centroids, found.level_centroids, strict=True):
        assert np.array_equal(one, other)


def test_code_table_columns_and_types(clustered: Make, small_config: Config, tmp_path: Path) -> None:
    quantize(small_config(), clustered(), ids(240), seed=0).save(tmp_path)
    schema = pq.read_schema(tmp_path / "codes.parquet")
    names = ["item", "item_id", "code_0", "code_1", "code_2", "code_3"]
    assert schema.names == names
    assert schema.types == [pa.int32(), pa.string(), *[pa.uint16()] * 4]


def test_a_file_that_is_no_code_table_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "codes.parquet", pa.table({"item": [0], "code_1": [1]}))
    with pytest.raises(UserError, match="columns of a code table are item, item_id, code_0"):
        CodeTable.load(tmp_path / "codes.parquet")


def test_one_item_is_quantized(clustered: Make, small_config: Config) -> None:
    found = quantize(small_config(), clustered(items=1), ids(1), seed=0)
    assert found.table.codes.tolist() == [[0, 0, 0, 0]]
    assert found.quality["relative_error"] == 0


def test_ids_and_embeddings_have_to_match(clustered: Make, small_config: Config) -> None:
    with pytest.raises(UserError, match="240 embeddings and 3 items"):
        quantize(small_config(), clustered(), ids(3), seed=0)


def test_too_many_items_to_reassign_name_the_setting_to_change(clustered: Make, small_config: Config) -> None:
    config = small_config(levels=1, collisions="reassign")
    with pytest.raises(UserError, match=r"240 items .* 8\^1 .*set quantize.collisions=suffix"):
        quantize(config, clustered(), ids(240), seed=0)


def test_figures_of_a_level_by_hand() -> None:
    figures = level_quality(np.array([0, 0, 1, 1, 3, 3, 3, 3], dtype=np.uint16), 4)
    assert figures["usage"] == [2, 2, 0, 4]
    assert figures["used"] == 3 and figures["used_share"] == 0.75
    assert figures["entropy"] == pytest.approx(1.5 * np.log(2))
    assert figures["perplexity"] == pytest.approx(2**1.5)
    assert figures["largest_group"] == 4 and figures["largest_to_mean"] == 2.0


def test_figures_of_collisions_by_hand() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [0, 0]], dtype=np.uint16)
    expected = {"items": 3, "share": 0.6, "tuples": 3, "largest_group": 3}
    assert collision_quality(codes) == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda codes: codes[:-1], r"broken gave codes of shape \(239, 3\), int64; wanted are integers of \(240, 3\)"),
        (lambda codes: codes.astype(np.float32), r"broken gave codes of shape \(240, 3\), float32"),
        (lambda codes: codes + 100, "broken gave codes from 100 to 107; wanted are those to 7"),
        (lambda codes: codes - 1, "broken gave codes from -1 to 6"),
    ],
)
def test_a_method_that_gives_no_codes_is_named(
    given: Callable[[Any], Any], told: str, clustered: Make, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(ResidualKMeans):
        @classmethod
        def fit(cls, *arguments: Any) -> Any:
            fitted, codes = super().fit(*arguments)
            return fitted, given(codes.astype(np.int64) % 8)

    monkeypatch.setitem(QUANTIZERS.places, "broken", "anywhere:Broken")
    monkeypatch.setattr(QUANTIZERS, "load", lambda _: Broken)
    with pytest.raises(ValueError, match=told):
        quantize(small_config(method="broken", codes=8), clustered(), ids(240), seed=0)
