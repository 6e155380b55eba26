"""The transition graph: a walk over which item followed which, from a user's latest two items, with and without texts.

After Han and others 2026 (arXiv 2605.07125, TGH-1 and TGH-2), who take the items within a few steps of the last one or
two in the directed graph of consecutive training interactions. There each ring gets a fixed number of places in the
list and is ordered by the cosine of texts, the first one also by counts, and what is missing is drawn at random. Here
all of it is one score, so that nothing is drawn and no number of places is set:

    s(j) = Σ_r w^(r-1) [ (e_latest + b · e_before) M^r ]_j ,   r = 1, 2, 3

M is the graph's matrix with rows that sum to 1: the shares of what followed an item at once. With texts it is that
one times 1 - t, plus t times a graph of nearest texts, so that whoever has no successors is left along texts, and what
both speak for counts twice. Knows counts and texts; knows no models. Axes: B users, N items, S text dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse

from prorec_core.data.sequences import Longs, Sequences
from prorec_core.evaluation.heuristics.base import Heuristic, Scores, Setting
from prorec_core.evaluation.heuristics.scored import Floats, Scored, Sparse
from prorec_core.metrics.top import best_places

RINGS = 3
"""Steps of the walk."""
NEAREST, TEMPERATURE = 20, 0.1
"""Texts that an item has edges to, and the temperature of the softmax over their cosines that weighs these edges. With
10 or 50 texts, or 0.05, NDCG@10 of 3,000 validation users of Amazon Beauty differs by about .001 at most."""
_ROWS = 8_000_000
"""Cells of the largest table of cosines."""


class Transitions(Heuristic):
    """The walk over ids alone.

    Numbers: `before`, the weight b of the item before the latest; `ring`, the weight w of each further ring.
    """

    axes: ClassVar[Mapping[str, Sequence[float]]] = {
        "before": (0.25, 0.0, 0.5, 1.0),
        "ring": (0.6, 0.3, 1.0, 2.0, 4.0),
    }
    rounds: ClassVar[Sequence[Sequence[str]]] = (("before", "ring"),)
    shared: ClassVar[Sequence[str]] = ("before", "ring")

    def __init__(self, training: Sequences, texts_NS: Floats | None) -> None:
        super().__init__(training, texts_NS)
        self._followed = shares(followers(training))

    def scores(self, settings: Sequence[Setting]) -> Scores:
        graph, weights = self._graph(settings[0]), {setting["before"] for setting in settings}

        def score(histories: Sequences) -> Iterator[Scored]:
            latest, before = (last_but(histories, back) for back in (0, 1))
            # One walk from both where their weights are the same by all settings, or else one from each.
            starts = [latest, before] if len(weights) > 1 else [latest + np.float32(min(weights)) * before]
            rings = [ring for start in starts for ring in walk(start, graph)]
            if len(settings) == 1:
                yield Sparse(_weighted(rings, settings[0]["ring"]))
                return
            pattern, values = _on_one_pattern(rings)
            for setting in settings:
                of_ring = [setting["ring"] ** steps for steps in range(RINGS)]
                factors = [*of_ring, *(setting["before"] * each for each in of_ring)]
                weighted = np.array(factors[: len(values)], np.float32) @ values
                yield Sparse(sparse.csr_matrix((weighted, pattern.indices, pattern.indptr), pattern.shape))

        return score

    def _graph(self, setting: Setting) -> sparse.csr_matrix:
        del setting
        return self._followed


class TransitionsAndTexts(Transitions):
    """The walk over what followed and over what reads alike.

    One number more: `text`, the share t of a step along texts; chosen after the others.
    """

    axes: ClassVar[Mapping[str, Sequence[float]]] = {**Transitions.axes, "text": (0.2, 0.1, 0.3, 0.5)}
    rounds: ClassVar[Sequence[Sequence[str]]] = (("before", "ring"), ("text", "ring"))

    def __init__(self, training: Sequences, texts_NS: Floats | None) -> None:
        super().__init__(training, texts_NS)
        assert texts_NS is not None
        self._alike = nearest_texts(texts_NS)

    def _graph(self, setting: Setting) -> sparse.csr_matrix:
        share = np.float32(setting["text"])
        return shares((1 - share) * self._followed + share * self._alike)


def followers(training: Sequences) -> sparse.csr_matrix:
    """How often each item (column) came right after each (row) in training, float32, shape (N, N)."""
    users = np.repeat(np.arange(training.n_users), np.diff(training.offsets))
    own = users[1:] == users[:-1]
    pairs = training.items[:-1][own], training.items[1:][own]
    shape = (training.n_items, training.n_items)
    return sparse.coo_matrix((np.ones(len(pairs[0]), np.float32), pairs), shape).tocsr()


def nearest_texts(texts_NS: Floats) -> sparse.csr_matrix:
    """Edges from each item to those of nearest text, itself left out; the weights of an item's edges sum to 1.

    Args:
        texts_NS: directions; an item without any is left along no edge.
    """
    n_items = len(texts_NS)
    near = min(NEAREST, n_items - 1)
    size, parts = max(1, _ROWS // max(n_items, 1)), [sparse.csr_matrix((0, n_items), dtype=np.float32)]
    for start in range(0, n_items if near > 0 else 0, size):
        cosines = texts_NS[start : start + size] @ texts_NS.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        values, places = (each.numpy() for each in best_places(torch.from_numpy(cosines), near))
        masses = np.exp((values - values.max(1, keepdims=True)) / TEMPERATURE)
        known = (texts_NS[start : start + size] != 0).any(1, keepdims=True)
        weights = np.where(known, masses / masses.sum(1, keepdims=True), 0).astype(np.float32)
        offsets = np.arange(len(rows) + 1) * near
        parts.append(sparse.csr_matrix((weights.ravel(), places.ravel(), offsets), (len(rows), n_items)))
    found = sparse.vstack(parts).tocsr() if near > 0 else sparse.csr_matrix((n_items, n_items), dtype=np.float32)
    found.eliminate_zeros()
    return found


def shares(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows at sum 1; those of zeros stay so."""
    sums = np.asarray(weights.sum(axis=1)).ravel()
    scaled = sparse.diags((1 / np.where(sums > 0, sums, 1)).astype(np.float32)) @ weights
    return scaled.tocsr().astype(np.float32)


def last_but(histories: Sequences, back: int) -> sparse.csr_matrix:
    """1 at each user's latest item, or one further back; nothing where the history ends before. Shape (B, N)."""
    lengths = np.diff(histories.offsets)
    users = np.flatnonzero(lengths > back)
    items = histories.items[histories.offsets[users + 1] - 1 - back]
    shape = (histories.n_users, histories.n_items)
    return sparse.coo_matrix((np.ones(len(users), np.float32), (users, items)), shape).tocsr()


def walk(start: sparse.csr_matrix, graph: sparse.csr_matrix) -> list[sparse.csr_matrix]:
    """Where a walk is after 1, 2, … steps, shape (B, N) each; rows in any order."""
    rings = []
    for _ in range(RINGS):
        start = (start @ graph).tocsr()
        rings.append(start)
    return rings


def _weighted(rings: Sequence[sparse.csr_matrix], weight: float) -> sparse.csr_matrix:
    """Rings summed, each further one by a weight more."""
    return sum((np.float32(weight**steps) * ring for steps, ring in enumerate(rings[1:], start=1)), rings[0]).tocsr()


def _on_one_pattern(parts: Sequence[sparse.csr_matrix]) -> tuple[sparse.csr_matrix, Floats]:
    """Matrices by their values at the same places, those of any of them: a matrix of such places, and a row a part."""
    ones = [sparse.csr_matrix((np.ones_like(part.data), part.indices, part.indptr), part.shape) for part in parts]
    pattern = sum(ones[1:], ones[0]).tocsr()
    pattern.sort_indices()
    places, values = _keys(pattern), np.zeros((len(parts), pattern.nnz), np.float32)
    for part, aligned in zip(parts, values, strict=True):
        aligned[np.searchsorted(places, _keys(part))] = part.data
    return pattern, values


def _keys(matrix: sparse.csr_matrix) -> Longs:
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    found: Longs = rows * matrix.shape[1] + matrix.indices
    return found
