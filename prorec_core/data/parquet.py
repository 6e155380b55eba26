"""Parquet as a reader: counted by the footer, read by PyArrow.

Knows row groups and types of columns. Knows nothing of where files are found or of what columns mean.

PyArrow rather than Polars: of some thousand damaged files it read none with fewer rows, and it says what is wrong where
Polars panics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from prorec_core.data.opening import Opener
from prorec_core.data.tables import row_number

_BATCH = 1 << 17


@dataclass(frozen=True)
class ParquetReader:
    """Columns of any type; what the file's writer noted beside them is left out."""

    open_file: Opener
    groups: tuple[int, int] | None = None
    """From which row group to which one, that alone excluded; None: all."""

    def columns(self) -> list[str]:
        return list(self._schema.names)

    def rows(self) -> int:
        if self.groups is not None:
            return sum(rows_of_groups(self.open_file)[slice(*self.groups)])
        with self.open_file() as file:
            return int(parquet.read_metadata(file).num_rows)

    def batches(self, columns: Sequence[int]) -> Iterator[pl.DataFrame]:
        fields = [self._schema.field(place) for place in columns]
        yield pl.DataFrame([as_series(n, pa.array([], field.type)) for n, field in enumerate(fields)])
        with self.open_file() as file:
            # A name selects all whose path begins with it, so the fields are looked up among what comes.
            names = [field.name for field in fields]
            whole = parquet.ParquetFile(file, page_checksum_verification=True)
            groups = None if self.groups is None else list(range(*self.groups))
            for batch in whole.iter_batches(_BATCH, row_groups=groups, columns=names):
                # Texts that are no UTF-8 would panic much later.
                batch.validate(full=True)
                yield pl.DataFrame([as_series(n, batch.column(name)) for n, name in enumerate(names)])

    def where(self, row: int) -> str:
        above = rows_of_groups(self.open_file)[: self.groups[0]] if self.groups else []
        return row_number(sum(above) + row)

    @cached_property
    def _schema(self) -> pa.Schema:
        with self.open_file() as file:
            return parquet.ParquetFile(file).schema_arrow


def rows_of_groups(open_file: Opener) -> list[int]:
    """How many rows each row group has, by the footer."""
    with open_file() as file:
        metadata = parquet.read_metadata(file)
        return [int(metadata.row_group(group).num_rows) for group in range(metadata.num_row_groups)]


def as_series(place: int, values: pa.Array) -> pl.Series:
    """PyArrow's values as a column that has its place as its name."""
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # The values are UTC whatever the zone, and Polars knows fewer zones than files do.
        values = values.cast(pa.timestamp(kind.unit, "UTC"))
    return pl.Series(f"{place}", values)
