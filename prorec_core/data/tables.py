"""A table as it came: the contract of every reader, and what is checked of it in one place.

Knows rows, names of columns and places for messages. Knows nothing of formats of files or of what columns mean.

A reader (`Reader`) counts the rows of its file without the parser that reads them, reads columns by their literal
names in the order of the file, and says where in the file a row stands. `RawTable` holds every reader to this: rows
that are lost are an error, never fewer rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import polars as pl
import pyarrow as pa

from prorec_core.errors import UserError

_SAID = 200


class Reader(Protocol):
    """One file of rows. Tests of a new one inherit `ReaderContract`."""

    def columns(self) -> list[str]:
        """Names of the columns as the file has them: any text, perhaps one twice."""
        ...

    def rows(self) -> int:
        """How many rows the file holds, counted without the parser that reads them."""
        ...

    def batches(self, columns: Sequence[int]) -> Iterator[pl.DataFrame]:
        """Some columns, by their place among `columns()`, of all rows in the order of the file.

        The frames' columns have the names "0", "1" and so on, in the order asked for. No value is changed into
        another type to make it fit: what does not go together is an error. A column without any value in a batch may
        have the type Null there, and one of numbers whole ones in one batch and fractions in the next.
        """
        ...

    def where(self, row: int) -> str:
        """Where a row stands, counted from 0, in words: "line 17" of the file, "row 16" where it has no lines."""
        ...


class Place(str):
    """Where a table stands, in words; knows also where one of its rows does."""

    __slots__ = ("_where",)
    _where: Callable[[int], str]

    def __new__(cls, words: str, where: Callable[[int], str]) -> Place:
        place = super().__new__(cls, words)
        place._where = where
        return place

    def row(self, row: int) -> str:
        """Where a row stands, counted from 0."""
        return self._where(row)

    def of_rows(self, rows: pl.Series) -> Place:
        """The same place of which these rows alone are left, numbers from 0."""
        return Place(self, lambda row: self.row(int(rows[row])))

    @classmethod
    def of(cls, words: str) -> Place:
        """The same place; where no table is known, its rows are counted from 1."""
        return words if isinstance(words, Place) else cls(words, row_number)


def row_number(row: int) -> str:
    """A row, counted from 0, in words, where it has no line of a file."""
    return f"row {row + 1:,}"


class RawTable:
    """What a reader reads, held to the contract of readers, and its place for messages."""

    def __init__(self, reader: Reader, place: str) -> None:
        self._reader = reader
        self.place = Place(place, self._where)

    @classmethod
    def of_frame(cls, frame: pl.DataFrame, place: str) -> RawTable:
        """A table that is in memory already."""
        return cls(FrameReader(frame), place)

    def columns(self) -> list[str]:
        """Names of the columns, without reading the rows where the format allows it."""
        with reading(self.place):
            return self._columns

    def rows(self) -> int:
        """How many rows there are, counted without the parser that reads them."""
        with reading(self.place):
            return self._reader.rows()

    def collect(self, *columns: str) -> pl.DataFrame:
        """Read some columns of all rows, in the order of the file.

        Raises:
            UserError: the file cannot be read, a name stands in it twice or not at all, or rows would be lost.
        """
        parts = list(self.batches(*columns))
        with reading(self.place):
            # Only whole numbers and fractions, and Null, differ between batches (the contract of `Reader.batches`).
            return pl.concat(parts, how="vertical_relaxed", rechunk=True)

    def batches(self, *columns: str) -> Iterator[pl.DataFrame]:
        """The same rows batch by batch, at least one; that none is missing is known with the last.

        Raises:
            UserError: as `collect`.
        """
        with reading(self.place):
            names = list(dict.fromkeys(columns))
            places = [self._column(name) for name in names]
            read = 0
            for batch in self._reader.batches(places):
                read += batch.height
                yield pl.DataFrame({name: batch.to_series(place) for place, name in enumerate(names)})
            expected = self._reader.rows()
            if read != expected:
                raise UserError(
                    f"the file holds {expected:,} rows, and {read:,} were read",
                    place=self.place,
                    cure="Check that it is complete and that nobody writes it",
                )

    @cached_property
    def _columns(self) -> list[str]:
        return self._reader.columns()

    def _column(self, name: str) -> int:
        found = [place for place, present in enumerate(self._columns) if present == name]
        if len(found) != 1:
            problem = f"there is no column '{name}'" if not found else f"{len(found)} columns have the name '{name}'"
            raise UserError(problem, place=self.place, cure="Give the column this name, and no other one")
        return found[0]

    def _where(self, row: int) -> str:
        with reading(str(self.place)):
            return self._reader.where(row)


@dataclass(frozen=True)
class FrameReader:
    """Rows that are in memory."""

    frame: pl.DataFrame

    def columns(self) -> list[str]:
        return self.frame.columns

    def rows(self) -> int:
        return self.frame.height

    def batches(self, columns: Sequence[int]) -> Iterator[pl.DataFrame]:
        yield pl.DataFrame([self.frame.to_series(place).alias(str(n)) for n, place in enumerate(columns)])

    def where(self, row: int) -> str:
        return row_number(row)


class reading:  # noqa: N801 - used as a statement, like contextlib's own
    """Turns what libraries and the operating system say of an unreadable file into one line for the user.

    Polars' panics are no `Exception`; they end here too.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(
                f"it cannot be opened ({error.strerror})", place=self.place, cure="Check its name and its permissions"
            ) from error
        if isinstance(error, _UNREADABLE):
            said = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"the file cannot be read ({said[:_SAID]})",
                place=self.place,
                cure="Check that it is complete and of the format that its suffix says",
            ) from error


_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    pa.ArrowException,
    OSError,
    UnicodeError,
    zlib.error,
    MemoryError,
    OverflowError,
    EOFError,
)
