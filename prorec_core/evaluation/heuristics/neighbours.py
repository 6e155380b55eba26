"""Nearest neighbours: items that the same users have (item-kNN), and items that read alike.

Knows counts and texts; knows no models. Axes: U users, B users of a block, N items, S text dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from scipy import sparse

from prorec_core.data.sequences import Sequences
from prorec_core.evaluation.heuristics.base import Heuristic, Scores, Setting
from prorec_core.evaluation.heuristics.scored import Dense, Floats, Scored, Sparse
from prorec_core.generation.similar import had, similar_items


class ItemKnn(Heuristic):
    """Item-kNN (Sarwar and others 2001, Deshpande & Karypis 2004): the summed similarity to all that a user has.

    Two items are as similar as the cosine of who has them, with a shrinkage against small counts:
    c_ij / (sqrt(c_i c_j) + shrinkage), c_ij the users who have both. Of each item its `neighbours` nearest count.
    """

    axes: ClassVar[Mapping[str, Sequence[float]]] = {
        "shrinkage": (10.0, 0.0, 30.0, 100.0),
        "neighbours": (100.0, 20.0, 500.0),
    }
    rounds: ClassVar[Sequence[Sequence[str]]] = (("shrinkage", "neighbours"),)
    shared: ClassVar[Sequence[str]] = ("neighbours",)

    def __init__(self, training: Sequences, texts_NS: Floats | None) -> None:
        super().__init__(training, texts_NS)
        self._has_UN = had(training)

    def scores(self, settings: Sequence[Setting]) -> Scores:
        most = int(max(setting["neighbours"] for setting in settings))
        similar, rank = similar_items(self._has_UN, settings[0]["shrinkage"], most)
        nearest = [_first(similar, rank, int(setting["neighbours"])) for setting in settings]

        def score(histories: Sequences) -> Iterator[Scored]:
            history_BN = had(histories)
            for each in nearest:
                found = (history_BN @ each).tocsr()
                found.sort_indices()
                yield Sparse(found)

        return score


class NearestText(Heuristic):
    """The items whose texts are nearest to the mean text of a user's `latest` items, by cosine; 0 stands for all."""

    axes: ClassVar[Mapping[str, Sequence[float]]] = {"latest": (1.0, 2.0, 5.0, 0.0)}
    rounds: ClassVar[Sequence[Sequence[str]]] = (("latest",),)
    shared: ClassVar[Sequence[str]] = ("latest",)
    gains = False

    def scores(self, settings: Sequence[Setting]) -> Scores:
        texts_NS = self.texts_NS
        assert texts_NS is not None

        def score(histories: Sequences) -> Iterator[Scored]:
            lengths = np.diff(histories.offsets)
            users = np.repeat(np.arange(histories.n_users), lengths)
            steps = np.repeat(histories.offsets[1:], lengths) - np.arange(len(users))
            for setting in settings:
                near = steps <= (setting["latest"] or np.inf)
                ones = np.ones(int(near.sum()), np.float32)
                latest_BN = sparse.csr_matrix(
                    (ones, (users[near], histories.items[near])), (histories.n_users, len(texts_NS))
                )
                query_BS = latest_BN @ texts_NS
                norms_B1 = np.linalg.norm(query_BS, axis=1, keepdims=True)
                yield Dense(np.asarray(query_BS / np.maximum(norms_B1, 1e-12), np.float32) @ texts_NS.T)

        return score


def _first(similar: sparse.csr_matrix, rank: np.ndarray, count: int) -> sparse.csr_matrix:
    """The same matrix with each row's first entries alone."""
    kept = rank < count
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    return sparse.csr_matrix((similar.data[kept], similar.indices[kept], before[similar.indptr]), similar.shape)
