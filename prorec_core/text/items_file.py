"""Vectors in a column of the shop's items file. Knows sources of data; whoever has no such column does without them."""

from __future__ import annotations

import pyarrow as pa

from prorec_core.config_data import DataConfig
from prorec_core.data.columns import as_ids, need_columns
from prorec_core.data.sources import open_source
from prorec_core.text.vectors import VectorTable, table_of


class ItemsFile:
    """The items file of a shop.

    Args:
        data: where it is, and how its ids are read.
    """

    def __init__(self, data: DataConfig) -> None:
        self._data = data

    def digest(self) -> str:
        """What tells it from any other.

        Raises:
            UserError: it is not there.
        """
        return open_source(self._data).digest()

    def vectors(self, column: str) -> VectorTable:
        """Vectors from a column; a row without one is allowed.

        Raises:
            UserError: the file, the column or a row cannot be used.
        """
        data, items = self._data, open_source(self._data).items()
        need_columns(items, {data.item_column: "data.item_column", column: "text.vectors[].column"})
        frame = items.collect(data.item_column, column)
        ids = as_ids(frame[data.item_column], items.place, data.missing).to_list()
        return table_of(ids, pa.chunked_array([frame[column].to_arrow()]), column, items.place, every=False)
