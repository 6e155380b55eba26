"""The scores of a model: generative, dense, fused, ranked; each ranks candidates and tells what its parts give.

Knows candidates, histories and what validation chose; knows nothing of item ids or text. Axes: U users, C candidates,
K items of a list, F terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.generation.candidates import Candidates
from prorec_core.generation.ranker import Ranker
from prorec_core.generation.trained import TrainedGenerator

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
_ROWS = 1 << 16
"""Rows of features whose scores are asked for at a time."""


class Scoring(Protocol):
    """One score."""

    @property
    def name(self) -> str:
        """generative, dense, fused or ranked."""
        ...

    @property
    def parts(self) -> Sequence[str]:
        """Names of the terms, F of them."""
        ...

    def __call__(self, found: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        """Each history's k best candidates and their scores."""
        ...

    def contributions(self, found: Candidates, histories: Sequences, places_UK: Places) -> tuple[Doubles, Doubles]:
        """What its parts give the candidates at some places, and what that is added to.

        Returns:
            The score of the history's mean candidate, shape (U,), and what each part adds to it, shape (U, K, F).
        """
        ...


class _Additive:
    """A score that is the sum of its terms."""

    def terms(self, found: Candidates, histories: Sequences) -> Doubles:
        """What each candidate's score is the sum of, shape (U, C, F); nan where there is no candidate."""
        raise NotImplementedError

    def contributions(self, found: Candidates, histories: Sequences, places_UK: Places) -> tuple[Doubles, Doubles]:
        """As `Scoring.contributions`."""
        terms_UCF = self.terms(found, histories)
        mean_UF = _mean(terms_UCF)
        return mean_UF.sum(1), np.take_along_axis(terms_UCF, places_UK[:, :, None], 1) - mean_UF[:, None, :]


@dataclass(frozen=True)
class Generative(_Additive):
    """The generator's beams alone."""

    name: str = "generative"
    parts: Sequence[str] = ("generative",)

    def __call__(self, found: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        return found.generative(k)

    def terms(self, found: Candidates, histories: Sequences) -> Doubles:
        there = (found.items_UC >= 0) & (np.arange(found.items_UC.shape[1]) < found.beams)
        return np.where(there, found.generative_UC.astype(np.float64), np.nan)[:, :, None]


@dataclass(frozen=True)
class Dense(_Additive):
    """The dense score alone: Stage I's, or that of the distillation head."""

    name: str = "dense"
    parts: Sequence[str] = ("dense",)

    def __call__(self, found: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        return found.dense(k)

    def terms(self, found: Candidates, histories: Sequences) -> Doubles:
        return np.where(found.by_models_UC, found.dense_UC.astype(np.float64), np.nan)[:, :, None]


@dataclass(frozen=True)
class Fused(_Additive):
    """`log p_gen + λ · log p_dense`, λ the weight."""

    weight: float
    name: str = "fused"
    parts: Sequence[str] = ("generative", "dense")

    def __call__(self, found: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        return found.fused(self.weight, k)

    def terms(self, found: Candidates, histories: Sequences) -> Doubles:
        both = np.stack([found.generative_UC, found.dense_UC], axis=-1).astype(np.float64)
        both = np.where(found.by_models_UC[:, :, None], both, np.nan)
        return both * [1.0, self.weight]


@dataclass(frozen=True)
class Ranked(_Additive):
    """By the ranker: a weighted sum of its features, or a network over them."""

    ranker: Ranker
    name: str = "ranked"

    @property
    def parts(self) -> Sequence[str]:
        return self.ranker.names

    def __call__(self, found: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        return self.ranker.rank(found, histories, k)

    def terms(self, found: Candidates, histories: Sequences) -> Doubles:
        assert self.ranker.network is None, "a network's score is no sum of terms"
        terms_UCF: Doubles = self._features(found, histories) * self.ranker.weights_F
        return terms_UCF

    def contributions(self, found: Candidates, histories: Sequences, places_UK: Places) -> tuple[Doubles, Doubles]:
        if self.ranker.network is None:
            return super().contributions(found, histories, places_UK)
        features_UCF = self._features(found, histories)
        chosen_UKF = np.take_along_axis(features_UCF, places_UK[:, :, None], 1)
        return shapley(self._of_rows, _mean(features_UCF), chosen_UKF)

    def _features(self, found: Candidates, histories: Sequences) -> Doubles:
        features_UCF = np.full((*found.items_UC.shape, len(self.parts)), np.nan)
        for users in self.ranker.relations.batches(found, np.arange(len(found.items_UC))):
            features_UCF[users] = self.ranker.relations.features(found, histories, users, own=self.ranker.own)
        features_UCF[found.items_UC < 0] = np.nan
        return features_UCF

    def _of_rows(self, features_XF: Doubles) -> Doubles:
        rows = features_XF.astype(np.float32)[None]
        scores: Doubles = self.ranker.scores(rows, np.array([-1]))[0].astype(np.float64)
        return scores


def shapley(score: Callable[[Doubles], Doubles], from_UF: Doubles, to_UKF: Doubles) -> tuple[Doubles, Doubles]:
    """How a score gets from one set of features to others: what each feature has a part in, whatever their order.

    Each feature's part is its mean over all orders in which the features could change, one after the other (Shapley,
    "A value for n-person games", 1953; exact, by all 2^F sets). With a linear score that is weight times change.

    Args:
        score: of rows of features, shape (X, F), the scores (X,).
        from_UF: a row a user.
        to_UKF: for each user K rows; nan where there is none.

    Returns:
        The scores of the first, shape (U,), and the parts, shape (U, K, F).
    """
    users, listed, count = to_UKF.shape
    sets = np.arange(1 << count)
    changed_SF = (sets[:, None] >> np.arange(count)) & 1 == 1
    of_size = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    without_F = [sets[~changed_SF[:, feature]] for feature in range(count)]
    to_XF, owner_X = np.nan_to_num(to_UKF).reshape(-1, count), np.repeat(np.arange(users), listed)
    parts_XF = np.empty(to_XF.shape)
    at_a_time = max(1, _ROWS // len(sets))
    for some in np.split(np.arange(len(to_XF)), range(at_a_time, len(to_XF), at_a_time)):
        rows_XSF = np.where(changed_SF, to_XF[some, None, :], from_UF[owner_X[some], None, :])
        values_XS = score(rows_XSF.reshape(-1, count)).reshape(len(some), len(sets))
        for feature, without in enumerate(without_F):
            gains_XS = values_XS[:, without | 1 << feature] - values_XS[:, without]
            parts_XF[some, feature] = gains_XS @ of_size[changed_SF[without].sum(1)]
    return score(from_UF), parts_XF.reshape(to_UKF.shape)


def _mean(values_UCF: Doubles) -> Doubles:
    """Over the candidates that are there."""
    count_U = np.maximum((~np.isnan(values_UCF[:, :, 0])).sum(1), 1)
    found: Doubles = np.nansum(values_UCF, axis=1) / count_U[:, None]
    return found


def scorings_of(trained: TrainedGenerator, has_dense: bool) -> list[Scoring]:
    """The scores of a trained generator: first the one that validation chose, which recommends."""
    found: dict[str, Scoring] = {"generative": Generative()}
    if has_dense:
        found["dense"] = Dense()
    if trained.fusion_weight is not None:
        found["fused"] = Fused(trained.fusion_weight)
    if trained.ranker is not None:
        found["ranked"] = Ranked(trained.ranker)
    first = found.pop(trained.recommended if trained.recommended in found else "generative")
    return [first, *found.values()]
