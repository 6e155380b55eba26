"""Looking round in a catalogue: items by words of their titles, and the neighbours of one in code space and in text.

Knows titles, the trie and directions of texts; knows nothing of users or scores. Axes: N items, T dimensions of text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.generation.trie import CodeTrie


class Look:
    """Looks items up by number."""

    def __init__(
        self,
        trie: CodeTrie,
        item_ids: Sequence[str],
        titles: Sequence[str],
        counts_N: npt.NDArray[np.integer],
        texts_NT: npt.NDArray[np.float32] | None,
        withdrawn_N: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """
        Args:
            trie: of the catalogue.
            item_ids: in its order.
            titles: the same.
            counts_N: times in training.
            texts_NT: directions of texts; None where the model carries none.
            withdrawn_N: which items are not there any more; None: all are.
        """
        self._trie, self._counts_N, self._texts_NT = trie, counts_N, texts_NT
        self._there_N = np.ones(len(item_ids), bool) if withdrawn_N is None else ~withdrawn_N
        self._ids = pl.Series(item_ids, dtype=pl.String)
        self._titles = pl.Series(titles, dtype=pl.String).str.to_lowercase()

    def find(self, text: str, most: int) -> list[int]:
        """Items whose title has all words of a text, or whose id is the text; the id first, then the most popular."""
        words = text.lower().split()
        if not words:
            return []
        met = self._titles.str.contains(words[0], literal=True)
        for word in words[1:]:
            met &= self._titles.str.contains(word, literal=True)
        same = self._ids == text.strip()
        places = np.flatnonzero((met | same).to_numpy() & self._there_N)
        order = np.lexsort((-self._counts_N[places], ~same.to_numpy()[places]))
        return [int(place) for place in places[order[:most]]]

    def in_codes(self, item: int, most: int) -> list[tuple[int, int]]:
        """Items that share the most first codes with an item, and how many those are; the most popular first."""
        trie = self._trie
        leaf, found = int(trie.item_leaf[item]), [item]
        neighbours: list[tuple[int, int]] = []
        for level in range(trie.depth - 1, 0, -1):
            node = int(trie.path[item, level - 1])
            first, last = int(trie.first_leaf[level][node]), int(trie.last_leaf[level][node])
            # Of a node of very many items those around the leaf are enough.
            first, last = max(first, leaf - 100 * most), min(last, leaf + 100 * most)
            inside = trie.leaf_item[first:last].cpu().numpy()
            new = inside[~np.isin(inside, found) & self._there_N[inside]]
            new = new[np.argsort(-self._counts_N[new], kind="stable")][: most - len(neighbours)]
            neighbours += [(int(each), level) for each in new]
            found += new.tolist()
            if len(neighbours) >= most:
                break
        return neighbours

    def in_text(self, item: int, most: int) -> list[tuple[int, float]]:
        """Items of nearest text and their cosines, the nearest first; none where no texts are known."""
        if self._texts_NT is None:
            return []
        cosines_N = np.where(self._there_N, self._texts_NT @ self._texts_NT[item], -np.inf)
        cosines_N[item] = -np.inf
        most = min(most, int(np.isfinite(cosines_N).sum()))
        places = np.argpartition(-cosines_N, most - 1)[:most] if most > 0 else np.zeros(0, np.int64)
        places = places[np.lexsort((places, -cosines_N[places]))]
        return [(int(place), float(cosines_N[place])) for place in places]
