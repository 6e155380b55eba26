"""What `quantize` leaves: the code table, what codes mean, and the state of the fitted quantizer.

Knows the files of the artifact; knows no quantizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from prorec_core.artifacts import read_json, write_bytes, write_json
from prorec_core.quantization.table import CodeTable

Arrays = dict[str, npt.NDArray[Any]]
CENTROIDS = "level_centroids."
QUANTIZER = "quantizer."
"""Before the names of arrays: what each code of a level means, and the quantizer's own."""


@dataclass(frozen=True)
class Quantized:
    """What the stage leaves.

    Attributes:
        table: the code table.
        codebooks: named arrays: `level_centroids.0` … `level_centroids.{L-1}`, float32 (K, D), what each code
            means in the space of the embeddings; and `quantizer.*`, the fitted quantizer's state.
        quality: `method`; `items`; `levels`, a list with the figures of `level_quality` for each level of the
            table, the suffix included, and for each level but the suffix `relative_error`, the reconstruction
            error after it; `collisions`: `handling`, `before` and `after` (`collision_quality`), and `moved`,
            items whose codes handling changed; `relative_error` of the final codes.
        new_items: the code table of new items, none of whose tuples is in `table`; None where there are none.
    """

    table: CodeTable
    codebooks: Arrays
    quality: dict[str, Any]
    new_items: CodeTable | None = None

    def all_items(self) -> CodeTable:
        """The code table of all items: the new ones stand after the others."""
        if self.new_items is None:
            return self.table
        codes = np.concatenate([self.table.codes, self.new_items.codes])
        return CodeTable(codes, [*self.table.item_ids, *self.new_items.item_ids])

    @property
    def level_centroids(self) -> list[npt.NDArray[np.float32]]:
        """One array a code level without the suffix, float32 (K, D); zero rows are codes that no item has."""
        names = [name for name in self.codebooks if name.startswith(CENTROIDS)]
        return [self.codebooks[f"{CENTROIDS}{level}"] for level in range(len(names))]

    def save(self, folder: Path) -> None:
        """Write codes.parquet (new_codes.parquet for new items), codebooks.safetensors and quality.json."""
        if self.new_items is not None:
            self.new_items.save(folder / "new_codes.parquet")
        self.table.save(folder / "codes.parquet")
        arrays = {name: np.ascontiguousarray(value) for name, value in self.codebooks.items()}
        write_bytes(folder / "codebooks.safetensors", save(arrays))
        write_json(folder / "quality.json", self.quality)

    @classmethod
    def load(cls, folder: Path) -> Quantized:
        """Read what `save` wrote."""
        return cls(
            CodeTable.load(folder / "codes.parquet"),
            load((folder / "codebooks.safetensors").read_bytes()),
            read_json(folder / "quality.json"),
            CodeTable.load(folder / "new_codes.parquet") if (folder / "new_codes.parquet").is_file() else None,
        )
