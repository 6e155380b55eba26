"""Arrow's own files as a reader: streams, as the folders of Hugging Face's `datasets` hold them, and Feather.

Knows record batches and the two ways to write them one after the other. Knows nothing of where files are found.

A stream that is cut between two batches looks to PyArrow as if it ended there, and so does one that another was
written after: the mark at its end is looked for, and that nothing stands behind it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow as pa
from pyarrow import ipc

from prorec_core.data.opening import Opener
from prorec_core.data.parquet import as_series
from prorec_core.data.tables import row_number
from prorec_core.errors import UserError

_MAGIC = b"ARROW1"
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


@dataclass(frozen=True)
class ArrowReader:
    """Columns of any type, batch by batch as they were written."""

    open_file: Opener
    place: str

    def columns(self) -> list[str]:
        return list(self._schema.names)

    def rows(self) -> int:
        with self._batches() as batches:
            return sum(batch.num_rows for batch in batches)

    def batches(self, columns: Sequence[int]) -> Iterator[pl.DataFrame]:
        fields = [self._schema.field(place) for place in columns]
        yield pl.DataFrame([as_series(n, pa.array([], field.type)) for n, field in enumerate(fields)])
        with self._batches() as batches:
            for batch in batches:
                taken = batch.select(list(columns))
                taken.validate(full=True)
                yield pl.DataFrame([as_series(n, taken.column(n)) for n in range(len(fields))])

    def where(self, row: int) -> str:
        return row_number(row)

    @cached_property
    def _schema(self) -> pa.Schema:
        with self.open_file() as file:
            return (ipc.open_file if self._has_footer(file) else ipc.open_stream)(file).schema

    @contextmanager
    def _batches(self) -> Iterator[Iterator[pa.RecordBatch]]:
        with self.open_file() as file:
            if self._has_footer(file):
                reader = ipc.open_file(file)
                yield (reader.get_batch(place) for place in range(reader.num_record_batches))
                return
            size = self._expect_end(file)
            yield self._in_stream(file, size)

    def _in_stream(self, file: Any, size: int) -> Iterator[pa.RecordBatch]:
        yield from ipc.open_stream(file)
        if file.tell() != size:
            raise UserError(
                f"{size - file.tell():,} bytes follow the end of the table",
                place=self.place,
                cure="Write one table a file, and name several files by a pattern",
            )

    def _has_footer(self, file: Any) -> bool:
        found: bool = file.read(len(_MAGIC)) == _MAGIC
        file.seek(0)
        return found

    def _expect_end(self, file: Any) -> int:
        size = int(file.seek(0, os.SEEK_END))
        file.seek(max(0, size - len(_END)))
        ended = file.read() == _END
        file.seek(0)
        if not ended:
            raise UserError(
                "the mark at the end of the table is missing",
                place=self.place,
                cure="It is cut: copy it again",
            )
        return size
