"""Where the records of a delimited text file end: quotes by RFC 4180, over whole blocks at once.

Knows separators, quotes and line ends as bytes. Knows nothing of names of columns or of what fields mean.

A quote has a meaning only at the start of a field: there it opens the field, which ends at the next quote that is not
doubled, and may hold separators and line ends in between. Any other quote outside such a field is a character like
any other. A run of quotes that stand side by side thus does one of three things: it turns outside into inside or back
(an odd run at a field's start), ends a quoted field if one is open (an odd run elsewhere), or changes nothing (an even
run). What a row of such functions of two states does is two cumulated sums, so no Python runs byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from prorec_core.data.lines import Block, blocks
from prorec_core.data.opening import Opener
from prorec_core.errors import UserError

_LONGEST_FIELD = 64 << 20
_NEWLINE, _RETURN, _QUOTE = ord("\n"), ord("\r"), ord('"')

Positions = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Dialect:
    """How a file is delimited, and what of it is to be refused."""

    separator: str
    quotes: bool = True
    """Whether quotes have a meaning at all."""
    multiline: bool = False
    """Whether a quoted field may have line ends though its lines by themselves look like rows."""
    quotes_setting: str = "data.quotes=false"
    multiline_setting: str = "data.multiline=true"

    @property
    def code(self) -> int:
        """The separator as a byte."""
        return ord(self.separator)


@dataclass(frozen=True)
class Records:
    """The records of one block of lines."""

    block: Block
    dialect: Dialect
    open_since: int = 0
    """The line in which a quoted field was opened that the block begins in; 0 where it begins with a record."""

    @cached_property
    def plain(self) -> bool:
        """No line end is in a field: every line that is not blank is a record."""
        return not self._quoted or (not self.open_since and self._tidy())

    @cached_property
    def _quoted(self) -> bool:
        """Whether a quote has a meaning in this block."""
        return self.open_since > 0 or (self.dialect.quotes and b'"' in self.block.data)

    @cached_property
    def ends(self) -> Positions:
        """Where the line ends stand that end a record."""
        return self.line_ends if self.plain else self.line_ends[~self.inside(self.line_ends)]

    @cached_property
    def starts(self) -> Positions:
        """Where records begin, blank lines among them."""
        starts = np.append(0, self.ends + 1)
        return starts[starts < len(self.block.data)]

    @cached_property
    def stops(self) -> Positions:
        """Where the records of `starts` stop, their line ends left out."""
        return np.append(self.ends, len(self.block.data))[: len(self.starts)]

    @cached_property
    def blank(self) -> Flags:
        """Which of `starts` begin a line without any character; such a line is no record."""
        lengths = self.stops - self.starts
        empty: Flags = (lengths == 0) | ((lengths == 1) & (self._bytes[self.starts] == _RETURN))
        return empty

    def count(self) -> int:
        """How many records there are, blank lines apart."""
        data, numbers = self.block.data, self._bytes
        blank = bool(((numbers[1:] == _NEWLINE) & (numbers[:-1] == _NEWLINE)).any())
        blank = blank or (b"\r" in data and b"\n\r\n" in data)
        if not self.plain or blank or data.startswith((b"\n", b"\r")):
            return int(np.count_nonzero(~self.blank))
        return self.block.line_ends + (not data.endswith(b"\n"))

    @cached_property
    def line_ends(self) -> Positions:
        """Where line ends stand, those in quoted fields too."""
        return np.flatnonzero(self._bytes == _NEWLINE)

    @cached_property
    def separators(self) -> Positions:
        """Where separators stand, those in quoted fields too."""
        return np.flatnonzero(self._bytes == self.dialect.code)

    def inside(self, positions: Positions) -> Flags:
        """Which positions are in a quoted field (its quotes apart)."""
        if not self._quoted:
            return np.zeros(len(positions), np.bool_)
        return self._state[np.searchsorted(self._runs[1], positions, side="right")]

    def open_at_end(self) -> int:
        """`open_since` for the next block."""
        if self.plain or not self._state[-1]:
            return 0
        opened = self._opened()
        return self.block.line_at(int(opened[-1])) if len(opened) else self.open_since

    def check(self, place: str) -> None:
        """Refuse what is no RFC 4180: text after a closing quote, and a carriage return that ends no line.

        Raises:
            UserError: names the line.
        """
        if not self.plain:
            self._check_quotes(place)
        data = self.block.data
        if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
            returns = np.flatnonzero(self._bytes == _RETURN)
            alone = returns[(self._after(returns + 1) != _NEWLINE) & ~self.inside(returns)]
            if len(alone):
                raise UserError(
                    f"line {self.block.line_at(int(alone[0])):,} holds a carriage return that ends no line",
                    place=place,
                    cure="End lines in line feeds, with or without a carriage return before them, and quote fields "
                    "that hold one",
                )

    def _tidy(self) -> bool:
        """Whether the fields that begin with a quote end with one in the same line, and there is no other quote.

        Such are most files with quotes. It is what `_runs` and `_state` find too, found by fewer and cheaper steps.
        """
        data = self._bytes
        quote, line_end = data == _QUOTE, data == _NEWLINE
        border = line_end | (data == self.dialect.code)
        opens, closes = quote.copy(), quote.copy()
        opens[1:] &= border[:-1]
        closes[:-1] &= border[1:] | (data[1:] == _RETURN)
        if (opens & closes).any() or np.count_nonzero(quote) != 2 * np.count_nonzero(opens):
            return False
        # In the order of the block, what opens a field is followed by what closes one.
        kinds = (opens + 2 * closes.view(np.uint8))[quote | line_end]
        return bool(((kinds[:-1] != 1) | (kinds[1:] == 2)).all()) and kinds[-1] != 1

    def _check_quotes(self, place: str) -> None:
        starts, stops, odd, at_start = self._runs
        after = self._after(stops)
        ends_field = (after == _NEWLINE) | (after == self.dialect.code) | (after < 0)
        ends_field |= (after == _RETURN) & (self._after(stops + 1) == _NEWLINE)
        before = self._state[:-1]
        wrong = np.flatnonzero(~ends_field & np.where(before, odd, at_start & ~odd))
        if not len(wrong):
            return
        position = int(starts[wrong[0]])
        line = self.block.line_at(position)
        opened = self._opened()
        opened = opened[opened < position]
        since = self.block.line_at(int(opened[-1])) if len(opened) else self.open_since
        began = f", which began in line {since:,}," if before[wrong[0]] and since and since != line else ""
        slash = position > 0 and self.block.data[position - 1 : position] == b"\\"
        raise UserError(
            f"line {line:,}: a quoted field{began} goes on after its closing quote",
            place=place,
            cure="Write a quote in a quoted field as two of them"
            + (" (a backslash before it has no meaning)" if slash else "")
            + f", or set {self.dialect.quotes_setting} if quotes are part of the text",
        )

    def _opened(self) -> Positions:
        """Where quoted fields are opened that do not end in the same run of quotes."""
        return self._runs[0][~self._state[:-1] & self._state[1:]]

    @cached_property
    def _runs(self) -> tuple[Positions, Positions, Flags, Flags]:
        """The runs of quotes: where each begins and ends, whether it is odd, whether it begins a field."""
        quotes = np.flatnonzero(self._bytes == _QUOTE) if self.dialect.quotes else np.zeros(0, np.int64)
        apart = np.diff(quotes) != 1
        first, last = np.append(True, apart), np.append(apart, True)
        starts, stops = quotes[first[: len(quotes)]], quotes[last[: len(quotes)]] + 1
        before = self._bytes[starts - 1]
        at_start = (starts == 0) | (before == self.dialect.code) | (before == _NEWLINE)
        return starts, stops, (stops - starts) % 2 == 1, at_start

    @cached_property
    def _state(self) -> Flags:
        """Whether a quoted field is open: at the beginning, and after each run."""
        _, _, odd, at_start = self._runs
        flips = np.cumsum(odd & at_start)
        closes = np.maximum.accumulate(np.where(odd & ~at_start, np.arange(len(odd)), -1))
        closed = closes >= 0
        since = flips - np.where(closed, flips[closes], 0) + np.where(closed, 0, int(self.open_since > 0))
        return np.append(self.open_since > 0, since % 2 == 1)

    @property
    def _bytes(self) -> npt.NDArray[np.uint8]:
        return self.block.bytes

    def _after(self, positions: Positions) -> npt.NDArray[np.int16]:
        """The bytes at some positions; -1 after the end."""
        found = self._bytes[np.minimum(positions, len(self._bytes) - 1)].astype(np.int16)
        found[positions >= len(self._bytes)] = -1
        return found


def records(open_file: Opener, place: str, dialect: Dialect, size: int | None = None) -> Iterator[Records]:
    """A file's records, whole ones, block by block, checked.

    Raises:
        UserError: no UTF-8; quotes that are no RFC 4180; a quoted field that is never closed, or that is so long that a
            stray quote is likelier (names the line).
    """
    held: list[bytes] = []
    held_line, held_offset, open_since = 1, 0, 0
    for block in blocks(open_file, place) if size is None else blocks(open_file, place, size):
        found = Records(block, dialect, open_since)
        found.check(place)
        open_since = found.open_at_end()
        if not (held or open_since):
            yield found
            continue
        cut = (int(found.ends[-1]) + 1 if len(found.ends) else 0) if open_since else len(block.data)
        if not held:
            held_line, held_offset = block.first_line, block.offset
        if cut:
            whole = b"".join([*held, block.data[:cut]])
            yield Records(Block(whole, held_line, held_offset), dialect)
            held, held_line, held_offset = [], block.line_at(cut), block.offset + cut
        if cut < len(block.data):
            held.append(block.data[cut:])
        if sum(map(len, held)) > _LONGEST_FIELD:
            raise UserError(
                f"line {open_since:,}: the quoted field that begins here has more than {_LONGEST_FIELD >> 20} MB",
                place=place,
                cure=f"Look for a stray quote there, or set {dialect.quotes_setting} if quotes are part of the text",
            )
    if open_since:
        raise UserError(
            f"line {open_since:,}: the quoted field that begins here is never closed",
            place=place,
            cure=f"Close it, or set {dialect.quotes_setting} if quotes are part of the text",
        )
