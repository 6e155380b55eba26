"""Vectors in a column of the shop's items file. Knows sources of data; whoever has no such column does without them."""

from __future__ import annotations

import pyarrow as pa

from prorec_core.config_data import DataConfig
from prorec_core.data.columns import need_columns
from prorec_core.data.raw import rows_of_items
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
        frame, ids, place, _ = rows_of_items(data, frame, items.place)
        return table_of(ids.to_list(), pa.chunked_array([frame[column].to_arrow()]), column, place, every=False)
