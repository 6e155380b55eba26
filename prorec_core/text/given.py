"""Item vectors of one's own in place of texts, from a Parquet file. Knows that file; knows nothing of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from prorec_core.artifacts import sha256_file
from prorec_core.config_data import TextConfig
from prorec_core.errors import UserError
from prorec_core.progress import Progress, Report
from prorec_core.text.base import Encoder, FloatArray
from prorec_core.text.vectors import VectorTable, existing, named, read_file


class GivenVectors(Encoder):
    """Looks items up in the file that `text.model` names: columns `item_id`, and `embedding`, a list of numbers."""

    def __init__(self, table: VectorTable) -> None:
        self.table = table

    @classmethod
    def digest(cls, config: TextConfig) -> str:
        return sha256_file(_file(config))

    @classmethod
    def open(cls, config: TextConfig, device: str) -> Self:
        del device
        return cls(read_file(_file(config), "embedding", every=True))

    def encode(self, item_ids: list[str], texts: list[str], report: Report) -> FloatArray:
        without = [item for item in item_ids if item not in self.table.row_of]
        if without:
            raise UserError(
                f"{len(without):,} of {len(item_ids):,} items have no vector: {named(without)}",
                place=self.table.place,
                cure="Add them, or leave these items out of the items file",
            )
        report(Progress(len(texts), len(texts), "item"))
        return self.table.of(item_ids)[0]


def _file(config: TextConfig) -> Path:
    return existing(config.model, f"text.model={config.model}")
