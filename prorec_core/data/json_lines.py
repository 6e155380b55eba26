"""JSON Lines as a reader: an object a line, each value handed over as what it is; perhaps in Python's way of writing.

Knows lines, objects and the types of their values. Knows nothing of where files are found or of what columns mean.

What does not go together in one column is refused, not made into texts: `true`, `1.0` and `[1, 2]` look like ids once
they are texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
import polars as pl

from prorec_core.data.lines import Block, blocks
from prorec_core.data.opening import Opener
from prorec_core.data.python_literals import NoLiteralError, as_json
from prorec_core.data.tables import row_number
from prorec_core.errors import UserError

_NUMBER = "a number"
_WORDS = {
    bool: "true or false",
    int: _NUMBER,
    float: _NUMBER,
    str: "a text",
    list: "a list",
    dict: "an object",
}
_TYPES = {"a text": pl.String, "true or false": pl.Boolean}
_BLANK = b" \t\r\n"
_BLANK_LINE = re.compile(rb"\n[ \t\r]*(?=\n|\Z)")

Row = dict[str, Any]
_Kinds = dict[int, str]
"""What values of a column are, in words, at each depth: of the column, of its lists, of lists in these."""


@dataclass(frozen=True)
class JsonLinesReader:
    """An object a line; a key that an object lacks is null there, blank lines are passed over."""

    open_file: Opener
    place: str
    python: bool = False
    """Whether lines may be dictionaries as Python writes them, with single quotes, None and tuples."""

    def columns(self) -> list[str]:
        return self._names

    def rows(self) -> int:
        return self._rows

    def batches(self, columns: Sequence[int]) -> Iterator[pl.DataFrame]:
        names = [self._names[column] for column in columns]
        kinds: list[_Kinds] = [{} for _ in names]
        rows = 0
        for block, objects in self._parsed():
            rows += _count(block)
            found = []
            for place, name in enumerate(names):
                self._refuse_repeated(name, block, sum(name in row for row in objects))
                values = [row.get(name) for row in objects]
                self._note_kinds(kinds[place], values, block, name)
                found.append(_series(f"{place}", values, kinds[place]))
            yield pl.DataFrame(found)
        # Counted on the way, by the lines: a second pass over them would find the same.
        self.__dict__["_rows"] = rows

    def where(self, row: int) -> str:
        for block in self._blocks():
            found = _count(block)
            if row < found:
                return f"line {_line(block, row):,}"
            row -= found
        return row_number(row)

    @cached_property
    def _rows(self) -> int:
        return sum(map(_count, self._blocks()))

    @cached_property
    def _names(self) -> list[str]:
        found: dict[str, None] = {}
        for _, objects in self._parsed():
            for shape in dict.fromkeys(map(tuple, objects)):
                found.update(dict.fromkeys(shape))
        if not found:
            raise UserError("the file holds no keys", place=self.place, cure="It must hold a JSON object a line")
        return list(found)

    def _blocks(self) -> Iterator[Block]:
        return blocks(self.open_file, self.place)

    def _parsed(self) -> Iterator[tuple[Block, list[Row]]]:
        """Blocks and the objects of their lines; lines in Python's way stand in their block as JSON."""
        for each in self._blocks():
            block = each
            try:
                found = self._objects(block, told=not self.python)
            except orjson.JSONDecodeError:
                block = self._rewritten(block)
                found = self._objects(block)
            yield block, found

    def _objects(self, block: Block, *, told: bool = True) -> list[Row]:
        lines = _lines(block)
        try:
            found = list(map(orjson.loads, lines))
        except orjson.JSONDecodeError:
            if told:
                self._refuse_line(block, lines)
            raise
        if set(map(type, found)) - {dict}:
            row = next(row for row, value in enumerate(found) if not isinstance(value, dict))
            raise UserError(
                f"line {_line(block, row):,} holds {_word(found[row])} and no object",
                place=self.place,
                cure="Write a JSON object a line, without brackets or commas around them",
            )
        return found

    def _rewritten(self, block: Block) -> Block:
        lines = block.data.split(b"\n")
        for number, line in enumerate(lines, start=block.first_line):
            try:
                if line.strip(_BLANK):
                    orjson.loads(line)
            except orjson.JSONDecodeError:
                try:
                    lines[number - block.first_line] = as_json(line)
                except NoLiteralError as error:
                    raise UserError(
                        f"line {number:,} is neither JSON nor a dictionary as Python writes it: {error}",
                        place=self.place,
                        cure="Correct the line or drop it; if it is the last one, check that the file is complete",
                    ) from error
        return Block(b"\n".join(lines), block.first_line, block.offset)

    def _refuse_line(self, block: Block, lines: list[bytes]) -> None:
        for row, text in enumerate(lines):
            try:
                orjson.loads(text)
            except orjson.JSONDecodeError as error:
                array = text.lstrip(_BLANK).startswith(b"[")
                raise UserError(
                    f"line {_line(block, row):,} is no JSON object ({str(error).partition(': line')[0]})",
                    place=self.place,
                    cure="Write a JSON object a line, without brackets or commas around them"
                    if array
                    else "Correct it; if it is the last line, check that the file is complete",
                ) from error

    def _refuse_repeated(self, name: str, block: Block, rows: int) -> None:
        """Refuse an object that has a key twice, which some rows have: which value is meant is not known."""
        key = orjson.dumps(name)
        if block.data.count(key) <= rows:
            return
        for row, line in enumerate(_lines(block)):
            if line.count(key) > 1 and [each for each, _ in json.loads(line, object_pairs_hook=list)].count(name) > 1:
                raise UserError(
                    f"line {_line(block, row):,} has the key '{name}' twice", place=self.place, cure="Keep one of them"
                )

    def _note_kinds(self, known: _Kinds, values: list[Any], block: Block, name: str) -> None:
        """Add what these values are to what is known of the column's, and refuse what does not go with it."""
        before, depth, level = dict(known), 0, values
        while level:
            types = set(map(type, level)) - {type(None)}
            words = {_WORDS[kind] for kind in types}
            if len(words | {known.get(depth, word) for word in words}) > 1 or dict in types:
                self._refuse_mixed(before, values, block, name)
            for word in words:
                known[depth] = word
            level = [inner for value in level if value is not None for inner in value] if list in types else []
            depth += 1

    def _refuse_mixed(self, known: _Kinds, values: list[Any], block: Block, name: str) -> None:
        known = dict(known)
        for row, value in enumerate(values):
            level, depth = [value], 0
            while level:
                for one in level:
                    word = _word(one)
                    if one is not None and (known.setdefault(depth, word) != word or word == _WORDS[dict]):
                        others = "" if word == known[depth] else f", and {known[depth]} above it"
                        raise UserError(
                            f"column '{name}' holds {word} in line {_line(block, row):,}{others}",
                            place=self.place,
                            cure="Write values of one kind: texts, numbers, or lists of one of them",
                        )
                level = [inner for one in level if isinstance(one, list) for inner in one]
                depth += 1


def _word(value: Any) -> str:
    return _WORDS.get(type(value), "null")


def _lines(block: Block) -> list[bytes]:
    """The lines that are not blank."""
    lines = block.data.removesuffix(b"\n").split(b"\n")
    # Most files have no blank line, and to look at each line costs as much as to read a short one.
    return [line for line in lines if line.strip(_BLANK)] if _count(block) < len(lines) else lines


def _count(block: Block) -> int:
    """How many lines are not blank, by their line ends."""
    data = block.data.removesuffix(b"\n")
    return block.line_ends + (len(data) == len(block.data)) - len(_BLANK_LINE.findall(b"\n" + data))


def _line(block: Block, row: int) -> int:
    """Number of the line of a row of a block: the lines that are blank are no rows."""
    lines = (n for n, line in enumerate(block.data.split(b"\n")) if line.strip(_BLANK))
    return block.first_line + next(n for place, n in enumerate(lines) if place == row)


def _series(name: str, values: list[Any], kinds: _Kinds) -> pl.Series:
    words = [kinds[depth] for depth in sorted(kinds)]
    if words and words[-1] == _NUMBER:
        flat = values
        for _ in words[1:]:
            flat = [inner for value in flat if value is not None for inner in value]
        try:
            return pl.Series(name, values, dtype=_nested(pl.Float64 if float in map(type, flat) else pl.Int64, words))
        except (TypeError, OverflowError):
            return pl.Series(name, values, dtype=_nested(pl.Int128, words))
    return pl.Series(name, values, dtype=_nested(_TYPES.get(words[-1], pl.Null) if words else pl.Null, words))


def _nested(inner: Any, words: list[str]) -> Any:
    """The type of lists around a type; a list of which no value is known holds nothing."""
    for _ in range(sum(word == _WORDS[list] for word in words)):
        inner = pl.List(inner)
    return inner
