"""Texts as numbers, the same text by the same number in every batch: a hash table that whole arrays are looked up in.

Knows texts and 64-bit hashes; knows nothing of what the texts are.

A text is found by its hash (open addressing, linear probing) and then held against the text that has the number, so
that two texts with one hash stay two. Polars' `Categories` do the same, row by row: each row waits for the memory that
the one before asked for, which costs four times as much once the table is larger than the processor's caches.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import polars as pl

NONE = 2**32 - 1
"""Number of a row without a text."""

_LEAST = 1 << 16
_RECENT = 32
"""The latest texts are put beside the others once they are this part of them: texts side by side are found several
times as fast, and none is copied often."""

Numbers = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]


class Dictionary:
    """Different texts, numbered from 0 in the order in which they were met."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._size = 0
        self._hashes: Hashes = np.zeros(_LEAST // 2, np.uint64)
        self._slots: npt.NDArray[np.int32] = np.full(_LEAST, -1, np.int32)
        self._texts = self._recent = pl.Series([], dtype=pl.String)
        self._apart: dict[str, int] = {}
        """Texts that share their hash with one that came before."""

    def __len__(self) -> int:
        return self._size

    def texts(self, numbers: npt.NDArray[np.integer]) -> pl.Series:
        """The texts that have some numbers."""
        return pl.concat([self._texts, self._recent], rechunk=True).gather(pl.Series(numbers.astype(np.uint32)))

    def numbers(self, texts: pl.Series) -> Numbers:
        """The texts' numbers, uint32, shape (rows,), `NONE` for null; new ones are added.

        Several threads may ask at a time.
        """
        if texts.has_nulls():
            found = np.full(texts.len(), NONE, np.uint32)
            found[texts.is_not_null().to_numpy()] = self.numbers(texts.drop_nulls())
            return found
        if texts.is_empty():
            return np.zeros(0, np.uint32)
        hashes = self._hashed(texts)
        with self._lock:
            numbers = self._find(hashes)
            new = np.flatnonzero(numbers < 0)
            if len(new):
                _, first = np.unique(hashes[new], return_index=True)
                rows = np.sort(new[first])
                self._add(texts.gather(rows), hashes[rows])
                self._place(np.arange(self._size - len(rows), self._size, dtype=np.int32))
                numbers[new] = self._find(hashes[new])
            found = numbers.view(np.uint32)
            for row in self._others(found, texts):
                found[row] = self._number_apart(texts[row : row + 1], hashes[row : row + 1])
        return found

    def _hashed(self, texts: pl.Series) -> Hashes:
        return texts.hash().to_numpy()

    def _find(self, hashes: Hashes) -> npt.NDArray[np.int32]:
        """Numbers by hash alone, -1 where there is none."""
        mask = len(self._slots) - 1
        # One more slot along for all those that met another hash, until none has.
        places = (hashes & np.uint64(mask)).view(np.int64)
        numbers = self._slots[places]
        left = np.flatnonzero((self._hashes[numbers] != hashes) & (numbers >= 0))
        while len(left):
            places[left] = (places[left] + 1) & mask
            numbers[left] = met = self._slots[places[left]]
            left = left[(self._hashes[met] != hashes[left]) & (met >= 0)]
        return numbers

    def _add(self, texts: pl.Series, hashes: Hashes) -> None:
        """Give texts the numbers that come next."""
        first, self._size = self._size, self._size + len(hashes)
        if self._size > len(self._hashes):
            grown = np.zeros(2 * self._size, np.uint64)
            grown[:first] = self._hashes[:first]
            self._hashes = grown
            self._slots = np.full(1 << (2 * len(grown) - 1).bit_length(), -1, np.int32)
            known = np.arange(first, dtype=np.int32)
            self._place(known[~np.isin(known, list(self._apart.values()))])
        self._hashes[first : self._size] = hashes
        # As Arrow's plain texts they are a copy, which does not hold the whole batch in memory.
        plain = pl.Series(texts.to_arrow(compat_level=pl.CompatLevel.oldest()), dtype=pl.String)
        self._recent = pl.concat([self._recent, plain], rechunk=True)
        if self._recent.len() * _RECENT > self._texts.len():
            self._texts = pl.concat([self._texts, self._recent], rechunk=True)
            self._recent = self._recent.clear()

    def _others(self, numbers: Numbers, texts: pl.Series) -> list[int]:
        """The rows whose text is not the one that has the number."""
        size = self._texts.len()
        recent = np.flatnonzero(numbers >= size)
        wrong = self._texts.gather(pl.Series(np.minimum(numbers, size - 1))) != texts
        if len(recent):
            found = self._recent.gather(pl.Series(numbers[recent] - np.uint32(size)))
            wrong = wrong.scatter(recent, found != texts.gather(recent))
        return wrong.arg_true().to_list()

    def _place(self, numbers: npt.NDArray[np.int32]) -> None:
        """Put numbers where their hashes are looked for."""
        mask = len(self._slots) - 1
        places = (self._hashes[numbers] & np.uint64(mask)).view(np.int64)
        while len(numbers):
            free = self._slots[places] < 0
            self._slots[places[free]] = numbers[free]
            # Of several that want one slot the last one has got it.
            lost = self._slots[places] != numbers
            numbers, places = numbers[lost], (places[lost] + 1) & mask

    def _number_apart(self, text: pl.Series, hashed: Hashes) -> int:
        """Number of a text whose hash is found to be another one's."""
        if text[0] not in self._apart:
            self._apart[text[0]] = self._size
            self._add(text, hashed)
        return self._apart[text[0]]
