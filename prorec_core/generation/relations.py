"""What a ranker reads of items beside the models: what followed what, who has what, texts, popularity; its features.

Knows candidates, histories, counts and texts; knows nothing of weights, models or files. Axes: U users, C candidates, H
items of a history, N items, T dimensions of the text, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from prorec_core.alignment.new_items import directions_of, standing_for
from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.generation.candidates import Candidates
from prorec_core.generation.features import FEATURES, named_features
from prorec_core.generation.similar import Near, had, similar_items, strongest

Floats = npt.NDArray[np.float32]

WINDOW, WINDOW_DECAY = 5, 0.8
"""How many steps apart one item still follows another, and what each step more leaves of it."""
LATEST, LATEST_DECAY = 5, 0.6
"""How many of a history's latest items are asked, and what each one before leaves of what follows it."""
SHRINKAGE, MOST_SIMILAR, LATEST_HAD = 10.0, 100, 200
"""Of how alike two items are by who has them: against small counts; how many others of an item are known; how many of
a user's latest items count in training and in a history."""
_SIMILAR_SCALE = 20
_CELLS = 20_000_000
"""Numbers of the largest table of a batch of users, float32."""


@dataclass(frozen=True)
class Relations:
    """What is known of items beside the models.

    Attributes:
        counts_N: how often each occurs in training, float32.
        successors: how often each item (column) follows each (row) in training, nearer ones counting more; float32.
        texts_NT: directions of the items' texts, float32.
        similar: how alike each item (row) and its most similar others (columns) are by who has them, float32; None
            where a ranker of an earlier version knows nothing of it.
    """

    counts_N: Floats
    successors: sparse.csr_matrix
    texts_NT: Floats
    similar: sparse.csr_matrix | None = None

    @classmethod
    def of(cls, training: Sequences, texts_NT: Floats, *, later: bool = True) -> Relations:
        """Count what users did in training.

        Args:
            training: users' items without those held back.
            texts_NT: text embeddings of the items, and of new ones after them. Nobody has taken these yet: their counts
                are the means of the five known items of nearest text, so that they neither sink nor float for want of
                counts.
            later: whether features of LATER are to be known.
        """
        n_items = training.n_items
        users = np.repeat(np.arange(training.n_users), np.diff(training.offsets))
        total = sparse.csr_matrix((n_items, n_items), dtype=np.float32)
        for step in range(1, WINDOW + 1):
            own = users[step:] == users[:-step]
            pairs = training.items[:-step][own], training.items[step:][own]
            strength = np.full(len(pairs[0]), WINDOW_DECAY ** (step - 1), np.float32)
            total = total + sparse.coo_matrix((strength, pairs), (n_items, n_items)).tocsr()
        counts = np.bincount(training.items, minlength=n_items).astype(np.float32)
        similar = similar_items(had(training, LATEST_HAD), SHRINKAGE, MOST_SIMILAR)[0] if later else None
        return cls._with_new(counts, total, similar, directions_of(texts_NT))

    def with_more(self, texts_MT: Floats, known: int) -> Relations:
        """The same with items that came since, M of them after the others; nothing of the others changes.

        Args:
            texts_MT: their text embeddings.
            known: how many of the items, the first ones, were taken by somebody in training.
        """
        directions = np.concatenate([self.texts_NT, directions_of(texts_MT)])
        similar = None if self.similar is None else self.similar[:known, :known]
        return self._with_new(self.counts_N[:known], self.successors[:known, :known], similar, directions)

    @classmethod
    def _with_new(
        cls, counts: Floats, total: sparse.csr_matrix, similar: sparse.csr_matrix | None, directions: Floats
    ) -> Relations:
        known = len(counts)
        if len(directions) > known:
            stands_for = standing_for(directions, known)
            # Of an item that no text tells anything of, what is known is how often items are taken.
            usual = counts.mean(dtype=np.float64)
            counts, total = stands_for @ counts, stands_for @ total @ stands_for.T
            counts[~directions.any(axis=1) & (np.arange(len(directions)) >= known)] = usual
            if similar is not None:
                # What is known stays as it was; of what is new as few stand beside it.
                grown = (stands_for @ similar @ stands_for.T).tocsr()
                parts = grown[:, :known], grown[:, known:]
                similar = sparse.hstack([strongest(part, MOST_SIMILAR) for part in parts])
        return cls(counts, _table(total), directions, None if similar is None else _table(similar))

    def names(self, *, own: bool) -> tuple[str, ...]:
        """Those of the features that it gives."""
        return named_features(own=own, later=self.similar is not None)

    def batches(self, candidates: Candidates, users: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
        """Some users, as many at a time as their candidates' texts, features and what followed have room for."""
        followers = LATEST * self.successors.nnz // max(len(self.counts_N), 1)
        if self.similar is not None:
            beside = LATEST_HAD * self.similar.nnz // max(len(self.counts_N), 1)
            followers = max(followers, min(beside, len(self.counts_N)))
        of_candidates = candidates.items_UC.shape[1] * max(self.texts_NT.shape[1], LATEST + len(FEATURES))
        size = max(1, _CELLS // max(of_candidates, followers, 1))
        for start in range(0, len(users), size):
            yield users[start : start + size]

    def tensors(self) -> dict[str, Tensor]:
        """All of it as tensors by name."""
        tables = {"successors": self.successors} | ({} if self.similar is None else {"similar": self.similar})
        arrays = {"counts": self.counts_N, "texts": self.texts_NT}
        for name, table in tables.items():
            arrays |= {
                f"{name}.offsets": table.indptr.astype(np.int64),
                f"{name}.items": table.indices.astype(np.int32),
                f"{name}.counts": table.data,
            }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Relations:
        """What `tensors` gave."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        n_items = len(arrays["counts"])

        def table(name: str) -> sparse.csr_matrix:
            parts = (arrays[f"{name}.counts"], arrays[f"{name}.items"], arrays[f"{name}.offsets"])
            return sparse.csr_matrix(parts, (n_items, n_items))

        similar = table("similar") if "similar.counts" in arrays else None
        return cls(arrays["counts"], table("successors"), arrays["texts"], similar)

    def features(
        self, candidates: Candidates, histories: Sequences, users: npt.NDArray[np.int64], *, own: bool = False
    ) -> Floats:
        """The features of `names` of some users' candidates, float32, shape (U, C, F), 0 where there is no candidate.

        Args:
            candidates: of all users.
            histories: theirs, in the same order.
            users: whose are asked for.
            own: with those of OWN after them.
        """
        items_UC = candidates.items_UC[users]
        there_UC = items_UC >= 0
        asked_UC = np.where(there_UC, items_UC, 0)
        latest_UH = _latest(histories, users)
        known_UH = latest_UH >= 0
        # A user's latest items as a row of the items' matrix; times the successors, what has followed any of them.
        decay_UH = np.where(known_UH, LATEST_DECAY ** np.arange(LATEST, dtype=np.float32), 0.0).astype(np.float32)
        rows = np.repeat(np.arange(len(users)), known_UH.sum(1))
        shape = (len(users), len(self.counts_N))
        history_UN = sparse.csr_matrix((decay_UH[known_UH], (rows, latest_UH[known_UH])), shape)
        followed_UC = _at((history_UN @ self.successors).tocsr(), asked_UC)
        features = (
            _finite(candidates.generative_UC[users]),
            _finite(candidates.dense_UC[users]),
            np.log1p(followed_UC),
            self._text(asked_UC, latest_UH),
            np.log1p(self.counts_N[asked_UC]),
            *(() if self.similar is None else self._later(asked_UC, history_UN, histories.select(users))),
            *(_own(histories.select(users), asked_UC, len(self.counts_N)) if own else ()),
        )
        return np.stack([np.where(there_UC, each, 0.0) for each in features], axis=-1).astype(np.float32)

    def latest(self, histories: Sequences, users: npt.NDArray[np.int64]) -> IntArray:
        """The items of some users that features look at, the very latest first, int32, -1 where there are fewer."""
        return _latest(histories, users)

    def decay(self) -> Floats:
        """How much each of those counts in what followed."""
        return LATEST_DECAY ** np.arange(LATEST, dtype=np.float32)

    def near(self, histories: Sequences) -> sparse.csr_matrix:
        """How alike each item is to all that a history has, float32, shape (U, N).

        Raises:
            ValueError: nothing is known of who has what.
        """
        if self.similar is None:
            raise ValueError("these relations do not know who has what")
        return (had(histories, LATEST_HAD, len(self.counts_N)) @ self.similar).tocsr()

    @cached_property
    def _predecessors(self) -> sparse.csr_matrix:
        return self.successors.T.tocsr()

    def _later(self, items_UC: IntArray, latest_UN: sparse.csr_matrix, histories: Sequences) -> tuple[Floats, Floats]:
        """LATER of each user's candidates."""
        preceded_UC = _at((latest_UN @ self._predecessors).tocsr(), items_UC)
        return np.log1p(preceded_UC), np.log1p(_SIMILAR_SCALE * _at(self.near(histories), items_UC))

    def _text(self, items_UC: IntArray, latest_UH: IntArray) -> Floats:
        """Cosine of each candidate's text with that of the nearest of the latest items, 0 without history."""
        latest_UHT = self.texts_NT[np.maximum(latest_UH, 0)]
        cosine_UHC = latest_UHT @ self.texts_NT[items_UC].transpose(0, 2, 1)
        nearest_UC = np.where((latest_UH >= 0)[:, :, None], cosine_UHC, -1.0).max(1)
        # The very latest comes first: who lacks that has none.
        return np.where(latest_UH[:, :1] >= 0, nearest_UC, 0.0).astype(np.float32)


def _table(values: sparse.spmatrix) -> sparse.csr_matrix:
    """The same in rows whose columns ascend, float32."""
    table = values.tocsr().astype(np.float32)
    table.sort_indices()
    return table


def _at(table_UN: sparse.csr_matrix, items_UC: IntArray) -> Floats:
    """What some rows have for some columns each, shape (U, C)."""
    rows = np.repeat(np.arange(len(items_UC)), items_UC.shape[1])
    found: Floats = np.asarray(table_UN[rows, items_UC.ravel()]).reshape(items_UC.shape)
    return found


def _own(histories: Sequences, items_UC: IntArray, n_items: int) -> tuple[Floats, Floats]:
    """OWN of some users' candidates, given these users' histories."""
    lengths = np.diff(histories.offsets)
    rows = np.repeat(np.arange(histories.n_users), lengths)
    steps = np.repeat(histories.offsets[1:], lengths) - np.arange(len(rows))
    # What comes last in a history is found first from behind.
    pairs, latest, times = np.unique((rows * n_items + histories.items)[::-1], return_index=True, return_counts=True)
    asked = np.arange(len(items_UC))[:, None] * n_items + items_UC
    if not len(pairs):
        return (np.zeros(asked.shape, np.float32),) * 2
    places = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    has = pairs[places] == asked
    recency = 1 / np.log2(1.0 + steps[::-1][latest])
    found = (np.where(has, each[places], 0.0).astype(np.float32) for each in (np.log1p(times), recency))
    return next(found), next(found)


def _latest(histories: Sequences, users: npt.NDArray[np.int64]) -> IntArray:
    """Each user's latest items, the very latest first, -1 where there are fewer; shape (U, LATEST)."""
    places_UH = histories.offsets[users + 1][:, None] - 1 - np.arange(LATEST)
    inside_UH = places_UH >= histories.offsets[users][:, None]
    padded = np.append(histories.items, np.int32(-1))
    return np.where(inside_UH, padded[np.where(inside_UH, places_UH, -1)], -1).astype(np.int32)


def _finite(values_UC: Floats) -> Floats:
    """Log-probabilities; what has none gets the least of the user's others, and 0 where nobody has any."""
    known_UC = np.isfinite(values_UC)
    least_U1 = np.where(known_UC, values_UC, np.inf).min(1, keepdims=True)
    return np.where(known_UC, values_UC, np.where(np.isfinite(least_U1), least_U1, 0.0)).astype(np.float32)


def near_of(relations: Relations | None) -> Near | None:
    """`Relations.near` of relations that know who has what; None of others."""
    return None if relations is None or relations.similar is None else relations.near
