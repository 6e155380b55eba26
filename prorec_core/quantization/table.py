"""The code table: each item's tuple of codes, and its file. Knows nothing of how codes are found or used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prorec_core.artifacts import read_parquet, write_parquet
from prorec_core.errors import UserError

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
