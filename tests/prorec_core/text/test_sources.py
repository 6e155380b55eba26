"""Several semantic sources: standardised, side by side, what is missing as declared, what is wrong in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prorec_core.config_data import DataConfig, TextConfig, VectorSource
from prorec_core.errors import UserError
from prorec_core.text.semantic import Semantic, SemanticSource
from prorec_core.text.sources import found_vectors, joined, source_digest
from prorec_core.text.stage import describe, outside_digest
from prorec_core.text.vectors import read_file

IDS = ["a", "b", "c", "d"]
NO_DATA = DataConfig()


def random(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(3, 2, shape).astype(np.float32)


def file(folder: Path, ids: list[Any], vectors: Any, name: str = "pictures.parquet", **columns: Any) -> Path:
    kind = columns.pop("dtype", None)
    embedding = pl.Series("embedding", vectors if isinstance(vectors, list) else vectors.tolist(), dtype=kind)
    pl.DataFrame({"item_id": ids, "embedding": embedding, **columns}).write_parquet(folder / name)
    return folder / name


def config(*sources: dict[str, Any], **more: Any) -> TextConfig:
    return TextConfig(vectors=[VectorSource.model_validate(each) for each in sources], **more)


def picture(path: Path, **more: Any) -> TextConfig:
    return config({"name": "picture", "path": str(path), **more})


def of(text: TextConfig, own: Any = None, ids: list[str] = IDS, known: int = 4, data: DataConfig = NO_DATA) -> Semantic:
    own = random(len(ids), 3, seed=9) if own is None else own
    return joined(own, "encoder", found_vectors(text, data, ids, known), known)


def test_each_source_weighs_the_same_whatever_its_width_and_size(tmp_path: Path) -> None:
    path = file(tmp_path, IDS, 1000 * random(4, 7))
    found = of(picture(path))
    assert [(each.name, each.width) for each in found.sources] == [("text", 3), ("picture", 7)]
    for part in (found.embeddings[:, :3], found.embeddings[:, 3:]):
        assert np.allclose(part.mean(0), 0, atol=1e-5)
        assert np.isclose(np.square(part).sum() / 4, 1, rtol=1e-4)
    assert found.embeddings.dtype == np.float32 and found.embeddings.shape == (4, 10)


def test_items_without_a_vector_stand_at_the_mean_and_are_counted(tmp_path: Path) -> None:
    path = file(tmp_path, ["c", "a", "e", "x"], random(4, 5))
    found = of(picture(path, missing="mean"), ids=["a", "b", "c", "d", "e", "f"], known=4)
    text, source = found.sources
    assert (found.embeddings[[1, 3, 5], text.width :] == 0).all()
    assert source.without == 2 and source.new_without == 1 and source.items == 4
    assert source.examples == ["b", "d", "f"] and source.missing == "mean"
    # New items decide nothing: means and scale are those of the known ones.
    assert np.allclose(found.embeddings[[0, 2], text.width :].mean(0), 0, atol=1e-6)


def test_an_item_without_a_vector_is_an_error_by_default(tmp_path: Path) -> None:
    path = file(tmp_path, ["a", "c"], [[1.0], [2.0]])
    with pytest.raises(UserError, match=r"2 of 4 items have no vector 'picture': b, d\. .*missing: mean") as caught:
        of(picture(path))
    assert str(path) in str(caught.value)
    path = file(tmp_path, IDS, [[1.0], [2.0], None, [4.0]])
    with pytest.raises(UserError, match="1 of 4 items have no vector 'picture': c"):
        of(picture(path))
    assert of(picture(path, missing="mean")).sources[1].without == 1


def test_what_a_model_keeps_places_new_vectors_among_the_others(tmp_path: Path) -> None:
    vectors = random(4, 5)
    found = of(picture(file(tmp_path, IDS, vectors)))
    kept = json.loads(json.dumps({"sources": [each.to_json() for each in found.sources]}))
    text, source = SemanticSource.all_of(kept, 8)
    assert [text, source] == found.sources
    again = source.placed(vectors[2:], np.array([True, False]))
    assert (again[0] == found.embeddings[2, 3:]).all() and (again[1] == 0).all()
    assert source.digest == source_digest(picture(file(tmp_path, IDS, vectors)).vectors[0], NO_DATA)


def test_an_encoder_of_an_earlier_version_is_the_text_as_it_is() -> None:
    (only,) = SemanticSource.all_of({"digest": "x", "max_tokens": 128}, 384)
    vectors = random(3, 384)
    assert (only.name, only.width) == ("text", 384) and only.placed(vectors, np.ones(3, bool)) is vectors


def test_vectors_may_be_alone(tmp_path: Path) -> None:
    path = file(tmp_path, IDS, random(4, 5))
    text = picture(path, missing="mean").model_copy(update={"encoder": "none"})
    found = describe(text, NO_DATA, IDS, [""] * 4, 4)
    assert found.embeddings.shape == (4, 5) and [each.name for each in found.sources] == ["picture"]
    with pytest.raises(ValueError, match="encoder=none needs a source"):
        TextConfig(encoder="none")
    with pytest.raises(ValueError, match="names of their own"):
        config({"name": "a"}, {"name": "a"})
    with pytest.raises(ValueError, match="none is called text"):
        config({"name": "text"})


def _shop(folder: Path, items: pl.DataFrame, **more: Any) -> DataConfig:
    folder.mkdir(exist_ok=True)
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]}).write_parquet(folder / "interactions.parquet")
    suffix = more.pop("suffix", "parquet")
    match suffix:
        case "parquet":
            items.write_parquet(folder / "items.parquet")
        case "jsonl":
            items.write_ndjson(folder / "items.jsonl")
        case "csv":
            items.write_csv(folder / "items.csv")
    return DataConfig(source="tables", path=str(folder), **more)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_column_of_the_items_file_is_a_source(tmp_path: Path, suffix: str) -> None:
    vectors = [[1.0, 2.0], [3.0, 5.0], None, [0.0, 1.0]]
    items = pl.DataFrame({"sku": [7, 8, 9, 10], "title": list("wxyz"), "pixels": vectors})
    data = _shop(tmp_path, items, suffix=suffix, item_column="sku")
    text = config(
        {"name": "picture", "column": "pixels", "missing": "mean"},
        {"name": "more", "column": "pixels", "missing": "mean"},
    )
    ids = ["10", "7", "8", "9"]
    found = of(text, ids=ids, data=data)
    assert found.embeddings.shape == (4, 7) and found.sources[1].examples == ["9"]
    assert (found.embeddings[:, 3:5] == found.embeddings[:, 5:]).all() and (found.embeddings[3, 3:] == 0).all()
    own = found.embeddings[:3, 3:5] * found.sources[1].scale + found.sources[1].mean
    assert np.allclose(own, [[0, 1], [1, 2], [3, 5]], atol=1e-5)


@pytest.mark.parametrize("policy", [{"items_without_id": "drop"}, {"repeated_items": "first"}])
def test_rows_that_the_catalogue_leaves_out_have_no_vector(tmp_path: Path, policy: dict[str, Any]) -> None:
    more = {"item_id": [None if "items_without_id" in policy else IDS[0]], "title": ["x"], "pixels": [[9.0, 9.0]]}
    items = pl.DataFrame(
        {"item_id": IDS, "title": list("wxyz"), "pixels": [[1.0, 2.0], [3.0, 5.0], [2.0, 2.0], [0.0, 1.0]]}
    )
    text = config({"name": "picture", "column": "pixels"})
    plain = of(text, data=_shop(tmp_path / "plain", items, suffix="jsonl"))
    found = of(text, data=_shop(tmp_path / "more", pl.concat([items, pl.DataFrame(more)]), suffix="jsonl", **policy))
    assert np.array_equal(found.embeddings, plain.embeddings)


def test_a_column_that_is_no_list_of_numbers_or_not_there_is_told(tmp_path: Path) -> None:
    data = _shop(tmp_path, pl.DataFrame({"item_id": IDS, "pixels": ["[1, 2]"] * 4}), suffix="csv")
    with pytest.raises(UserError, match=r"items\.csv: the column 'pixels' is .*string.* Give lists of numbers"):
        of(config({"name": "picture", "column": "pixels"}), data=data)
    with pytest.raises(UserError, match=r"there is no column 'pixel'\. Set text\.vectors.* \(nearest: 'pixels'\)"):
        of(config({"name": "picture", "column": "pixel"}), data=data)


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a", "b", "c", "a"], [[1.0]] * 4, "row 1: item_id 'a' stands there twice. Keep one."),
        (IDS, [[1.0, 2.0], [1.0], [1.0, 2.0], [2.0, 1.0]], "row 2, item_id 'b': its vector has not 2 numbers"),
        (IDS, [[1.0], [2.0], [float("nan")], [1.0]], "row 3, item_id 'c': its vector holds what is no finite number"),
        (IDS, [[1.0], [1e300], [2.0], [1.0]], "row 2, item_id 'b': its vector holds what is no finite number"),
        (IDS, [[1.0], [2.0], [None], [1.0]], "row 3, item_id 'c': its vector holds what is no finite number"),
        (IDS, [["x"]] * 4, "the column 'embedding' is "),
        (IDS, [1.0, 2.0, 3.0, 4.0], "the column 'embedding' is double"),
        (["P1", "P2", "P3", "P4"], [[1.0]] * 4, "none of the 4 items is there: they are like 'a', and it has 'P1'"),
        (IDS, [[1.0, 2.0]] * 4, "the vectors 'picture' of the 4 items that have one do not differ"),
        (IDS, [None, None, None, None], "is null"),
        ([*IDS[:3], None], [[1.0], [2.0], [3.0], [4.0]], "has no id in row 4"),
    ],
)
def test_what_is_wrong_with_vectors_is_one_line(
    tmp_path: Path, ids: list[Any], vectors: list[Any], message: str
) -> None:
    path = file(tmp_path, ids, vectors)
    with pytest.raises(UserError) as caught:
        of(picture(path, missing="mean"))
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_rows_of_many_chunks_stay_in_their_order(tmp_path: Path) -> None:
    vectors = random(4, 3)
    rows = [None if row == 1 else vectors[row].tolist() for row in range(4)]
    path = tmp_path / "pictures.parquet"
    table = pa.table({"item_id": IDS, "embedding": pa.array(rows, pa.list_(pa.float32()))})
    pq.write_table(table, path, row_group_size=1)
    found = read_file(path, "embedding", every=False)
    assert (found.vectors_RS[[0, 2, 3]] == vectors[[0, 2, 3]]).all() and found.there_R.tolist() == [
        True,
        False,
        True,
        True,
    ]


def test_a_file_that_is_not_there_or_no_parquet_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text\.vectors, 'picture', path=.*nowhere.*: there is no such file"):
        of(picture(tmp_path / "nowhere.parquet"))
    (tmp_path / "pictures.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"pictures\.npy: the vectors cannot be read .* Give a Parquet file"):
        of(picture(tmp_path / "pictures.npy"))
    with pytest.raises(UserError, match="there is no column 'pixels' but item_id, embedding"):
        of(picture(file(tmp_path, IDS, random(4, 2)), column="pixels"))


def test_the_content_of_files_is_what_the_key_follows(tmp_path: Path) -> None:
    def digest(text: TextConfig) -> str:
        return outside_digest(text.model_copy(update={"encoder": "none"}), NO_DATA)

    path = file(tmp_path, IDS, random(4, 2))
    before = digest(picture(path))
    moved = path.rename(tmp_path / "moved.parquet")
    assert digest(picture(moved)) == before
    assert digest(picture(file(tmp_path, IDS, random(4, 2, seed=1)))) != before


def test_a_column_that_stands_twice_is_one_line(tmp_path: Path) -> None:
    columns = [pa.array(IDS), pa.array(IDS), pa.array([[1.0]] * 4)]
    path = tmp_path / "pictures.parquet"
    pq.write_table(pa.Table.from_arrays(columns, names=["item_id", "item_id", "embedding"]), path)
    with pytest.raises(UserError, match="2 columns have the name 'item_id'"):
        of(picture(path, missing="mean"))
