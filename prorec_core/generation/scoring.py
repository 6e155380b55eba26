"""The scores of a model: generative, dense, fused, ranked; each ranks candidates and tells its terms.

Knows candidates, histories and what validation chose; knows nothing of item ids or text. Axes: U users, C candidates,
K items of a list, F terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.generation.candidates import Candidates
from prorec_core.generation.ranker import FEATURES, Ranker, named_features
from prorec_core.generation.trained import TrainedGenerator

Floats = npt.NDArray[np.float32]


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

    def terms(self, found: Candidates, histories: Sequences) -> npt.NDArray[np.float64]:
        """What each candidate's score is the sum of, shape (U, C, F); nan where there is no candidate."""
        ...


@dataclass(frozen=True)
class Generative:
    """The generator's beams alone."""

    name: str = "generative"
    parts: Sequence[str] = ("generative",)

    def __call__(self, found: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        return found.generative(k)

    def terms(self, found: Candidates, histories: Sequences) -> npt.NDArray[np.float64]:
        there = (found.items_UC >= 0) & (np.arange(found.items_UC.shape[1]) < found.beams)
        return np.where(there, found.generative_UC.astype(np.float64), np.nan)[:, :, None]


@dataclass(frozen=True)
class Dense:
    """The dense score alone: Stage I's, or that of the distillation head."""

    name: str = "dense"
    parts: Sequence[str] = ("dense",)

    def __call__(self, found: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        return found.dense(k)

    def terms(self, found: Candidates, histories: Sequences) -> npt.NDArray[np.float64]:
        return np.where(found.items_UC >= 0, found.dense_UC.astype(np.float64), np.nan)[:, :, None]


@dataclass(frozen=True)
class Fused:
    """`log p_gen + λ · log p_dense`, λ the weight."""

    weight: float
    name: str = "fused"
    parts: Sequence[str] = ("generative", "dense")

    def __call__(self, found: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        return found.fused(self.weight, k)

    def terms(self, found: Candidates, histories: Sequences) -> npt.NDArray[np.float64]:
        both = np.stack([found.generative_UC, found.dense_UC], axis=-1).astype(np.float64)
        both = np.where((found.items_UC >= 0)[:, :, None], both, np.nan)
        return both * [1.0, self.weight]


@dataclass(frozen=True)
class Ranked:
    """A weighted sum of the ranker's features."""

    ranker: Ranker
    name: str = "ranked"

    @property
    def parts(self) -> Sequence[str]:
        return named_features(own=self._own)

    @property
    def _own(self) -> bool:
        return len(self.ranker.weights_F) > len(FEATURES)

    def __call__(self, found: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        return self.ranker.rank(found, histories, k)

    def terms(self, found: Candidates, histories: Sequences) -> npt.NDArray[np.float64]:
        terms_UCF = np.full((*found.items_UC.shape, len(self.parts)), np.nan)
        relations = self.ranker.relations
        for users in relations.batches(found, np.arange(len(found.items_UC))):
            terms_UCF[users] = relations.features(found, histories, users, own=self._own) * self.ranker.weights_F
        return np.where((found.items_UC >= 0)[:, :, None], terms_UCF, np.nan)


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
