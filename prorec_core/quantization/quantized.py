"""What `quantize` leaves: the code table, what codes mean, and the state of the fitted quantizer.

Knows the files of the artifact; knows no quantizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import load, save

from prorec_core.artifacts import read_json, read_parquet, write_bytes, write_json, write_parquet
from prorec_core.errors import UserError

Arrays = dict[str, npt.NDArray[Any]]
CENTROIDS = "level_centroids."
QUANTIZER = "quantizer."
"""Before the names of arrays: what each code of a level means, and the quantizer's own."""
_STAGE = "quantize"


@dataclass(frozen=True)
class CodeTable:
    """One row an item, in the order of the item indices.

    Attributes:
        codes: uint16, shape (items, depth); no two rows are equal. The depth is the number of code levels, and
            one more where collisions are told apart by a suffix.
        item_ids: the items' own ids.
    """

    codes: npt.NDArray[np.uint16]
    item_ids: list[str]

    @property
    def depth(self) -> int:
        """Codes of an item."""
        return int(self.codes.shape[1])

    def save(self, path: Path) -> None:
        """Write Parquet with the columns item int32, item_id string, code_0 … code_{depth-1} uint16."""
        columns = {
            "item": pa.array(np.arange(len(self.codes), dtype=np.int32)),
            "item_id": pa.array(self.item_ids, pa.string()),
        }
        for level, codes in enumerate(self.codes.T):
            columns[f"code_{level}"] = pa.array(np.ascontiguousarray(codes, dtype=np.uint16))
        write_parquet(path, pa.table(columns))

    @classmethod
    def load(cls, path: Path) -> CodeTable:
        """Read what `save` wrote.

        Raises:
            UserError: the file is not a code table, or one of another schema version.
        """
        table = read_parquet(path, _STAGE)
        depth = len(table.column_names) - 2
        expected = ["item", "item_id", *(f"code_{level}" for level in range(depth))]
        if depth < 1 or table.column_names != expected:
            raise UserError(
                f"the columns of a code table are item, item_id, code_0 …; found {', '.join(table.column_names)}",
                place=str(path),
                cure=f"Run the stage '{_STAGE}' again",
            )
        codes = [table.column(name).to_numpy().astype(np.uint16) for name in expected[2:]]
        return cls(np.stack(codes, axis=1), table.column("item_id").to_pylist())


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
