"""What the items under a prefix of codes have in common, in words of their titles.

Knows the trie and titles; knows nothing of models or users. Words are weighed by class-based TF-IDF (Grootendorst 2022,
BERTopic, arXiv 2203.05794, eq. 2): how many of the items below a node have a word, times log(1 + A / f), A the mean
number of words of a node of its level, f how many items have the word at all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from prorec_core.generation.trie import CodeTrie

_WORD = r"[\p{L}\p{N}][\p{L}\p{N}'’&-]*[\p{L}\p{N}]"
_MOST_WORDS = 50_000
"""Different words that are looked at, the commonest."""
_MOST_NODES = 10_000
"""Nodes whose words are kept."""


@dataclass(frozen=True)
class Shared:
    """The most telling words of the items below a node, the most telling first, and how many items those are."""

    words: tuple[str, ...]
    items: int


class CodeWords:
    """Looks up words of nodes; the titles are read when the first is asked for. May be asked by several threads."""

    def __init__(self, trie: CodeTrie, titles: list[str], most: int = 4) -> None:
        """
        Args:
            trie: of the catalogue.
            titles: of its items.
            most: words a node.
        """
        self._trie, self._titles, self._most = trie, titles, most
        self._kept: OrderedDict[tuple[int, int], Shared] = OrderedDict()
        self._lock = threading.Lock()

    def __deepcopy__(self, _: object) -> CodeWords:
        """One that begins anew over the same: nothing writes to what it is made of, and a lock cannot be copied."""
        return CodeWords(self._trie, self._titles, self._most)

    def of(self, level: int, node: int) -> Shared:
        """The words of a node of a level (1 … depth); none of one with a single item, which has no more in common."""
        with self._lock:
            key = level, node
            if key not in self._kept:
                self._kept[key] = self._find(level, node)
                if len(self._kept) > _MOST_NODES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _find(self, level: int, node: int) -> Shared:
        first, last = (int(of[level][node]) for of in (self._trie.first_leaf, self._trie.last_leaf))
        if last - first == 1:
            return Shared((), 1)
        words, leaves_of_words, counts_W = self._index
        inside = leaves_of_words[first:last]
        found, times = np.unique(inside.indices, return_counts=True)
        shared = times > 1
        found, times = found[shared], times[shared]
        mean = leaves_of_words.nnz / self._trie.n_nodes[level]
        weights = times * np.log1p(mean / counts_W[found])
        best = np.lexsort((found, -weights))[: self._most]
        return Shared(tuple(words[place] for place in found[best]), last - first)

    @cached_property
    def _index(self) -> tuple[list[str], sparse.csr_matrix, npt.NDArray[np.int64]]:
        """Words, which leaf (row) has which of them (column), and how many leaves each word has."""
        leaf_N = self._trie.item_leaf.cpu().numpy()
        texts = pl.Series("word", self._titles, dtype=pl.String).str.to_lowercase().str.extract_all(_WORD)
        frame = pl.DataFrame({"leaf": leaf_N, "word": texts}).explode("word").drop_nulls().unique()
        counts = frame["word"].value_counts(name="times").filter(pl.col("times") > 1)
        counts = counts.sort("times", "word", descending=[True, False]).head(_MOST_WORDS).with_row_index("number")
        frame = frame.join(counts, on="word")
        places = frame["leaf"].to_numpy(), frame["number"].to_numpy().astype(np.int32)
        shape = (len(leaf_N), counts.height)
        table = sparse.csr_matrix((np.ones(frame.height, np.int8), places), shape)
        return counts["word"].to_list(), table, counts["times"].to_numpy().astype(np.int64)
