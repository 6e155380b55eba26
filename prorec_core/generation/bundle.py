"""The folder of files that a registered model is: read whole, and written again with other items.

Knows the files; knows nothing of how they are used. All that placing new items takes is among them, in models that
this version or a later one registered: `placing.json` (how the shop's items are read, encoded and quantized),
`texts.parquet` (E_S of the trained items), the adapter and the codebooks.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from prorec_core import versions
from prorec_core.artifacts import read_json, write_json, write_parquet
from prorec_core.config import QuantizeConfig
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.data import kept_attributes
from prorec_core.data.embeddings import FloatArray, read_embeddings, write_embeddings
from prorec_core.errors import UserError
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.trained import TrainedGenerator
from prorec_core.quantization.quantized import CodeTable

_STAGE = "train_generator"
_NEEDED = ("model.safetensors", "config.json", "codes.parquet", "items.parquet", "embeddings.parquet")
PLACING, _TEXTS = "placing.json", "texts.parquet"
_FOR_PLACING = (PLACING, _TEXTS, "encoder.json", "adapter.safetensors", "align.json", "codebooks.safetensors")
_OWN = {*_NEEDED, "training.json", "catalogue.parquet", kept_attributes.FILE}
"""Files that are written from what is read of them; all others are copied."""


@dataclass(frozen=True)
class Bundle:
    """What a registered model is made of.

    Attributes:
        folder: where the files are that stay as they are.
        trained: the generator, its teachers and what its ranker knows of items.
        items: a row an item: item_id, title and train_count at least.
        codes: the code table, in the order of `items`.
        embeddings: the embedding that was quantized, float32, shape (N, E).
        catalogue: when each came, and which were withdrawn.
        attributes: columns of the items that are kept for rules; None where there are none.
    """

    folder: Path
    trained: TrainedGenerator
    items: pl.DataFrame
    codes: CodeTable
    embeddings: FloatArray
    catalogue: Catalogue
    attributes: pl.DataFrame | None = None

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read a bundle.

        Raises:
            UserError: a file of the bundle is missing or unreadable, or its parts do not belong together.
        """
        for name in _NEEDED:
            if not (folder / name).is_file():
                cure = "Register it anew; of what `train` left in a folder `open_run(…).export(…)` makes a model"
                raise UserError("a file of the model is missing", place=str(folder / name), cure=cure)
        trained = TrainedGenerator.load(folder)
        items = _items(folder / "items.parquet")
        table, catalogue = CodeTable.load(folder / "codes.parquet"), Catalogue.load(folder, items.height)
        if table.item_ids != items["item_id"].to_list() or len(catalogue) != items.height:
            raise UserError("codes and items are of different catalogues", place=str(folder), cure="Register it anew")
        embeddings = read_embeddings(folder / "embeddings.parquet", _STAGE)
        kept = folder / kept_attributes.FILE
        of_rules = kept_attributes.load(kept, items["item_id"]) if kept.is_file() else None
        return cls(folder, trained, items, table, embeddings, catalogue, of_rules)

    def save(self, folder: Path) -> None:
        """Write all of it to another folder, which must not exist."""
        folder.mkdir()
        for path in self.folder.iterdir():
            if path.name not in _OWN:
                shutil.copyfile(path, folder / path.name)
        self.trained.save(folder)
        write_parquet(folder / "items.parquet", self.items.to_arrow())
        self.codes.save(folder / "codes.parquet")
        write_embeddings(folder / "embeddings.parquet", self.embeddings)
        self.catalogue.save(folder)
        if self.attributes is not None:
            kept_attributes.save(folder / kept_attributes.FILE, self.items["item_id"], self.attributes)

    def withdrawn(self, rows: np.ndarray[Any, np.dtype[np.int64]], withdrawn: bool) -> Bundle:
        """The same with some items withdrawn, or back."""
        return replace(self, catalogue=self.catalogue.with_withdrawn(rows, withdrawn))


def _items(file: Path) -> pl.DataFrame:
    try:
        found = pl.DataFrame(pl.from_arrow(pq.read_table(file).replace_schema_metadata(None)))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"the table cannot be read ({error})", place=str(file), cure="Register it anew") from error
    if lacking := [name for name in ("item_id", "title", "train_count") if name not in found.columns]:
        raise UserError(f"the table lacks {', '.join(lacking)}", place=str(file), cure="Register it anew")
    return found


@dataclass(frozen=True)
class Placing:
    """How items of a model came to their vectors and codes, so that new ones can.

    Attributes:
        data: how the shop's items are read.
        text: the encoder of their texts.
        encoder: which one that was: `digest` and more.
        quantize: what codes are made of, and how.
        texts: E_S of the items that were trained on, float32, shape (trained items, S).
    """

    data: DataConfig
    text: TextConfig
    encoder: dict[str, Any]
    quantize: QuantizeConfig
    texts: FloatArray

    @classmethod
    def load(cls, folder: Path, model: str) -> Placing:
        """Read it from a bundle.

        Args:
            folder: the bundle.
            model: its name, for the error.

        Raises:
            UserError: the model was registered without it.
        """
        if lacking := [name for name in _FOR_PLACING if not (folder / name).is_file()]:
            raise UserError(
                f"the model does not carry what placing new items takes ({', '.join(lacking)}): an earlier version of "
                "prorec registered it",
                place=model,
                cure="Run its experiment again with --force train_generator, and add items to what that registers",
            )
        place = folder / PLACING
        sections = versions.read(place)
        return cls(
            versions.whole(DataConfig, sections.get("data"), str(place)),
            versions.whole(TextConfig, sections.get("text"), str(place)),
            read_json(folder / "encoder.json"),
            versions.whole(QuantizeConfig, sections.get("quantize"), str(place)),
            read_embeddings(folder / _TEXTS, _STAGE),
        )

    def save(self, folder: Path) -> None:
        """Write placing.json, encoder.json and texts.parquet."""
        parts = {"data": self.data, "text": self.text, "quantize": self.quantize}
        sections = {name: part.model_dump(mode="json") for name, part in parts.items()}
        write_json(folder / PLACING, versions.stored(sections))
        write_json(folder / "encoder.json", self.encoder)
        write_embeddings(folder / _TEXTS, self.texts)
