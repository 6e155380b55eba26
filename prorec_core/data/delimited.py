"""Delimited text (CSV, TSV, RecBole's atomic files) as a reader: counted by its bytes, read by PyArrow.

Knows headers, records and fields. Knows nothing of where files are found or of what columns mean.

Each block of whole records is counted by its bytes, and what cannot be read without a guess is refused, before PyArrow
reads it, which is strict about the number of fields and about where a quote has a meaning. (Polars is not: a quote
inside a field makes it lose rows, and a row with too few fields is filled up.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NoReturn

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import csv

from prorec_core.data.lines import Block
from prorec_core.data.opening import Opener
from prorec_core.data.quotes import Dialect, Records, records
from prorec_core.data.tables import row_number
from prorec_core.errors import UserError

_SEPARATORS = ",;\t|"
_BLOCK = 1 << 20
_LARGEST = (1 << 31) - 1


@dataclass(frozen=True)
class _Header:
    names: list[str]
    body: int
    """Where the first record after the header begins, in bytes."""


@dataclass(frozen=True)
class DelimitedReader:
    """A header and records; every value is a string, an empty one that is not quoted is null."""

    open_file: Opener
    place: str
    dialect: Dialect
    typed_header: bool = False
    """Whether names in the header are followed by a colon and a type (RecBole), which is left out."""
    block_size: int | None = None
    """Bytes at a time; a block may have more where a record is longer."""
    names: tuple[str, ...] = ()
    """Names of the columns of a file that has no header."""

    def columns(self) -> list[str]:
        names = self._header.names
        return [name.partition(":")[0] for name in names] if self.typed_header else names

    def rows(self) -> int:
        return self._rows

    def batches(self, columns: Sequence[int]) -> Iterator[pl.DataFrame]:
        wanted = [f"{place}" for place in columns]
        rows = 0
        yield pl.DataFrame(schema={f"{n}": pl.String for n in range(len(wanted))})
        for found in self._body():
            held = found.count()
            rows += held
            if held:
                frame = self._read(found, wanted)
                if frame.height != held:
                    self._refuse_lost(found, held, frame.height)
                yield frame
        # Counted on the way, by the bytes: a second pass over them would find the same.
        self.__dict__["_rows"] = rows

    def where(self, row: int) -> str:
        left = row
        for found in self._body():
            begun = found.starts[~found.blank]
            if left < len(begun):
                return f"line {found.block.line_at(int(begun[left])):,}"
            left -= len(begun)
        return row_number(row)

    @cached_property
    def _rows(self) -> int:
        return sum(found.count() for found in self._body())

    @cached_property
    def _header(self) -> _Header:
        if self.names:
            return _Header(list(self.names), 0)
        for found in self._records():
            if header := self._header_in(found):
                return header
        raise UserError(
            "the file holds no column names", place=self.place, cure="It must begin with a line of column names"
        )

    def _records(self) -> Iterator[Records]:
        return records(self.open_file, self.place, self.dialect, self.block_size)

    def _body(self) -> Iterator[Records]:
        """The records after the header."""
        header = self._header
        for found in self._records():
            block = found.block
            cut = max(0, header.body - block.offset)
            if cut >= len(block.data):
                continue
            rest = found
            if cut:
                rest = Records(Block(block.data[cut:], block.line_at(cut), block.offset + cut), self.dialect)
            if not (rest.plain or self.dialect.multiline):
                self._refuse_rows_in_fields(rest, len(header.names))
            yield rest

    def _read(self, found: Records, wanted: list[str]) -> pl.DataFrame:
        data = found.block.data
        # Without a line end at its end, PyArrow takes an empty last field for a quoted one.
        buffer = pa.py_buffer(data if data.endswith(b"\n") else data + b"\n")
        try:
            table = csv.read_csv(
                pa.BufferReader(buffer),
                read_options=csv.ReadOptions(
                    column_names=[f"{place}" for place in range(len(self._header.names))],
                    block_size=min(_LARGEST, max(_BLOCK, buffer.size + 1)),
                    use_threads=False,
                ),
                parse_options=csv.ParseOptions(
                    delimiter=self.dialect.separator,
                    quote_char='"' if self.dialect.quotes else False,
                    newlines_in_values=not found.plain,
                ),
                convert_options=csv.ConvertOptions(
                    check_utf8=False,
                    include_columns=wanted,
                    column_types=dict.fromkeys(wanted, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid:
            self._refuse_ragged(found)
            raise
        return pl.DataFrame([pl.Series(f"{n}", table.column(name)) for n, name in enumerate(wanted)])

    def _header_in(self, found: Records) -> _Header | None:
        """The names in the first record; None where there are only blank lines."""
        for start, stop in zip(found.starts[~found.blank], found.stops[~found.blank], strict=True):
            fields = self._fields(found, int(start), int(stop))
            declared = self.dialect.separator.join(fields)
            if declared.lower().startswith("sep=") and len(declared) == len("sep=") + 1:
                if declared[-1] != self.dialect.separator:
                    self._refuse_separator(declared[-1])
                continue
            if len(fields) == 1:
                for other in _SEPARATORS.replace(self.dialect.separator, ""):
                    if other in fields[0]:
                        self._refuse_separator(other)
            return _Header(fields, found.block.offset + int(stop) + 1)
        return None

    def _fields(self, found: Records, start: int, end: int) -> list[str]:
        data = found.block.data
        inner = found.separators[(found.separators >= start) & (found.separators < end)]
        borders = [start - 1, *inner[~found.inside(inner)].tolist(), end]
        parts = [data[left + 1 : right] for left, right in pairwise(borders)]
        parts[-1] = parts[-1].removesuffix(b"\r")
        return [
            (part[1:-1].replace(b'""', b'"') if self.dialect.quotes and part.startswith(b'"') else part).decode()
            for part in parts
        ]

    def _refuse_separator(self, other: str) -> NoReturn:
        names = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
        raise UserError(
            f"fields are separated by {names.get(other, repr(other))}, and not by {names[self.dialect.separator]}",
            place=self.place,
            cure="A .csv file has commas, a .tsv file tabs: write or name it so",
        )

    def _refuse_rows_in_fields(self, found: Records, columns: int) -> None:
        """Refuse a quoted field whose lines by themselves look like rows: two stray quotes make such of rows.

        Either a line that lies wholly inside has the file's number of columns, or both lines of a record of two have.
        """
        data, line_ends = found.block.data, found.line_ends
        stops = line_ends if data.endswith(b"\n") else np.append(line_ends, len(data))
        starts = np.append(0, stops[:-1] + 1)
        goes_on = found.inside(stops)
        begun_above = np.append(False, goes_on[:-1])
        separators = found.separators
        like_row = np.searchsorted(separators, stops) - np.searchsorted(separators, starts) + 1 == columns
        after_first = np.append(False, (like_row & ~begun_above & goes_on)[:-1])
        wrong = np.flatnonzero(like_row & begun_above & (goes_on | after_first))
        if len(wrong):
            opened = int(np.flatnonzero(~begun_above[: wrong[0]])[-1])
            first = found.block.first_line
            raise UserError(
                f"line {first + int(wrong[0]):,} lies in a quoted field that begins in line {first + opened:,}, but "
                "looks like a row by itself",
                place=self.place,
                cure=f"Look for a stray quote, or set {self.dialect.multiline_setting} if it is meant",
            )

    def _refuse_ragged(self, found: Records) -> None:
        """Say which record has another number of fields than the header, if one has."""
        columns = len(self._header.names)
        outside = found.separators[~found.inside(found.separators)]
        fields = np.searchsorted(outside, found.stops) - np.searchsorted(outside, found.starts) + 1
        wrong = np.flatnonzero(~found.blank & (fields != columns))
        if len(wrong):
            raise UserError(
                f"line {found.block.line_at(int(found.starts[wrong[0]])):,} has {_fields(fields[wrong[0]])}, and "
                f"{'there must be' if self.names else 'the header'} {columns:,}",
                place=self.place,
                cure="Correct the line; a field that holds the separator or a line end must be quoted",
            )

    def _refuse_lost(self, found: Records, held: int, read: int) -> NoReturn:
        first = found.block.first_line
        raise UserError(
            f"lines {first:,} to {first + found.block.line_ends:,} hold {held:,} records, and {read:,} were read",
            place=self.place,
            cure="Look for quotes and line ends in them that are odd",
        )


def _fields(number: int) -> str:
    return f"{number:,} fields" if number != 1 else "1 field"
