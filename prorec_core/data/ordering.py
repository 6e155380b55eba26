"""Rows in order of user and time, and what is found once they are: repeated rows, and ties.

Knows users, items and times as numbers; no files, no text, no filters' settings.

A row's place in the file is the last key of every order, so the result depends on the rows and their order in the file
alone, whatever reads them and however many threads sort. Work is done block by block of users: in memory beside the
columns are the keys of a few blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.data.counting import Codes, gathered, occurrences
from prorec_core.data.in_turn import in_turn

_BLOCK = 1 << 22
"""Rows of a block; it has more where one user has."""
_BITS = 63

BoolArray = npt.NDArray[np.bool_]
Span = tuple[int, int]


def order_of(*keys: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """The order of rows by some keys, the first one above all; equal rows stay as they are. Shape (rows,).

    As `numpy.lexsort` of the keys in reverse. Rows are sorted by as many bits of the keys at a time as a whole number
    has room for beside the row itself, the lowest first: NumPy sorts plain numbers many times faster than it finds
    their order.
    """
    rows = len(keys[0])
    row_bits = max(rows - 1, 1).bit_length()
    order: npt.NDArray[np.int64] | None = None
    for word in _words(keys, _BITS - row_bits):
        packed = np.arange(rows)
        for key, low, shift, bits, place in word:
            part = (key if order is None else key[order]).astype(np.int64)
            part -= low
            part >>= shift
            part &= (1 << bits) - 1
            part <<= place + row_bits
            packed |= part
        packed.sort()
        packed &= (1 << row_bits) - 1
        order = packed if order is None else order[packed]
    return np.arange(rows) if order is None else order


def _words(
    keys: tuple[npt.NDArray[np.integer[Any]], ...], room: int
) -> Iterator[list[tuple[npt.NDArray[np.integer[Any]], int, int, int, int]]]:
    """The keys' bits cut into words of at most `room` bits, the lowest first.

    A word is made of parts of keys: the key, what is taken off it, its bits from where and how many, and where in the
    word they go.
    """
    word, place = [], 0
    for key in reversed(keys):
        low, high = (int(key.min()), int(key.max())) if len(key) else (0, 0)
        shift, left = 0, (high - low).bit_length()
        while left:
            bits = min(left, room - place)
            word.append((key, low, shift, bits, place))
            shift, left, place = shift + bits, left - bits, place + bits
            if place == room:
                yield word
                word, place = [], 0
    if word:
        yield word


def in_order_of_time(frame: pl.DataFrame, *, numbered: bool = False) -> pl.DataFrame:
    """Rows sorted by user and time; those of a user at one time stay as in the file.

    Args:
        frame: user, item (int32), timestamp (int64); one row an interaction, in the order of the file.
        numbered: whether the result has a column `row` (int64) with each row's place in `frame`.
    """
    users, times = frame["user"].to_numpy(), frame["timestamp"].to_numpy()
    columns = {name: frame[name].to_numpy() for name in ("user", "item", "timestamp")}
    made = {name: np.empty_like(column) for name, column in columns.items()}
    if numbered:
        made["row"] = np.empty(len(users), np.int64)

    blocks = list(_blocks(_ends(users)))
    kind = np.min_scalar_type(len(blocks))
    of_user = np.repeat(np.arange(len(blocks), dtype=kind), [last - first for (first, last), _ in blocks])
    # Small numbers are looked through many times as fast as the users themselves.
    of_row = gathered(of_user, users)

    def sort(block: int) -> None:
        start, stop = blocks[block][1]
        rows = np.flatnonzero(of_row == block)
        order = order_of(users[rows], times[rows])
        for name, column in columns.items():
            made[name][start:stop] = column[rows][order]
        if numbered:
            made["row"][start:stop] = rows[order]

    for _ in in_turn(sort, range(len(blocks))):
        pass
    return pl.DataFrame(made)


def _ends(users: Codes) -> npt.NDArray[np.int64]:
    """How many rows the users up to each one have, shape (users,)."""
    return np.cumsum(occurrences(users, int(users.max()) + 1 if len(users) else 0))


def _blocks(ends: npt.NDArray[np.int64]) -> Iterator[tuple[Span, Span]]:
    """Ranges of users who have some rows together, and the ranges of these rows once they are sorted by user."""
    first, start = 0, 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, start + _BLOCK, side="right")))
        stop = int(ends[last - 1])
        yield (first, last), (start, stop)
        first, start = last, stop


def _spans(ordered: pl.DataFrame) -> Iterator[Span]:
    return (rows for _, rows in _blocks(_ends(ordered["user"].to_numpy())))


def _again(*columns: npt.NDArray[Any]) -> BoolArray:
    """Which rows have in all columns what the row above has, shape (rows,)."""
    same = np.zeros(len(columns[0]), np.bool_)
    same[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return same


def _tied(users: npt.NDArray[Any], times: npt.NDArray[Any]) -> BoolArray:
    """Which rows have a neighbour of the same user at the same time, shape (rows,)."""
    tied = _again(users, times)
    tied[:-1] |= tied[1:]
    return tied


def ties_share(ordered: pl.DataFrame) -> float:
    """Share of interactions that have another of the same user at the same time, six digits."""
    users, times = ordered["user"].to_numpy(), ordered["timestamp"].to_numpy()
    counts = (int(np.count_nonzero(_tied(users[start:stop], times[start:stop]))) for start, stop in _spans(ordered))
    return round(sum(counts) / len(users), 6)


def without_duplicates(ordered: pl.DataFrame, policy: str) -> BoolArray:
    """Mask of the rows that are no repetition, shape (rows,).

    Args:
        ordered: rows in order of user and time.
        policy: `exact`: of rows equal in user, item and time the first stays; `first`: of a user's rows with an item.
            Otherwise all stay.
    """
    users, items, times = (ordered[name].to_numpy() for name in ("user", "item", "timestamp"))
    keep = np.ones(len(users), np.bool_)

    def find(span: Span) -> None:
        part = slice(*span)
        who, what, when = users[part], items[part], times[part]
        # Exact repetitions are among the ties alone, which most data have few of.
        rows = np.flatnonzero(_tied(who, when)) if policy == "exact" else np.arange(len(who))
        keys = [who[rows], what[rows]] if policy == "first" else [who[rows], when[rows], what[rows]]
        order = order_of(*keys)
        keep[part.start + rows[order[_again(*(key[order] for key in keys))]]] = False

    if policy in ("exact", "first"):
        for _ in in_turn(find, _spans(ordered)):
            pass
    return keep


def shuffled_ties(ordered: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The same rows, those of a user at one time in an order that the seed draws.

    Args:
        ordered: rows in order of user and time, with a column `row` as `in_order_of_time` numbers them.
        seed: of the order. It depends on the rows' order in the file, whatever was filtered from between them.
    """
    rows = ordered["row"].to_numpy()
    users, items, times = (ordered[name].to_numpy() for name in ("user", "item", "timestamp"))
    there = np.zeros(int(rows.max()) + 1 if len(rows) else 0, np.bool_)
    there[rows] = True
    drawn = np.empty(len(rows), np.int64)
    drawn[np.random.default_rng(seed).permutation(len(rows))] = np.arange(len(rows))
    places = np.cumsum(there)
    found = items.copy()

    def shuffle(span: Span) -> None:
        part = slice(*span)
        tied = np.flatnonzero(_tied(users[part], times[part])) + part.start
        order = order_of(users[tied], times[tied], drawn[places[rows[tied]] - 1])
        found[tied] = items[tied[order]]

    for _ in in_turn(shuffle, _spans(ordered)):
        pass
    return ordered.with_columns(item=pl.Series(found)).drop("row")
