"""All that is measured, and all that is shown beside it. Knows nothing of how either is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.config import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Split
from prorec_core.metrics.top import TopItems


@dataclass(frozen=True)
class NewItemLists:
    """Recommendations from a catalogue that holds the new items too, numbered after the others.

    Attributes:
        known: by scorer the lists of every user before the test item, as in the plain evaluation.
        new: by scorer those of the users whose last interaction of all is with a new item, in the order of
            `Dataset.cold`, after all that these users have of other items.
        bonus: what was added to the score of each new item, in nats.
    """

    known: Mapping[str, TopItems]
    new: Mapping[str, TopItems]
    bonus: float = 0.0


@dataclass(frozen=True)
class EvaluationInputs:
    """What is measured.

    Attributes:
        config: the section `evaluate`.
        dataset: items, users, sequences and their profile; its `ties` are part of the protocol.
        lists: for validation and test the lists of each scorer, a row a user, all of one length; `evaluate` adds those
            of interactions alone that are measured everywhere.
        fusion_weight: λ of the dense score in the fused one; None where there is no fused scorer.
        seed: of the experiment.
        fusion_trials: the weights λ tried and the validation NDCG@10 of each.
        ranker: its features and weights and, where it was fitted here, what each feature adds (`fit_ranker`); None
            where there is none.
        recommended: the scorer by which the model recommends; "" for the first that is shown.
        new: recommendations with the new items of the data set in the catalogue; None where there are none.
        all_counts: add every scorer of interactions alone.
    """

    config: EvaluateConfig
    dataset: Dataset
    lists: Mapping[Split, Mapping[str, TopItems]]
    fusion_weight: float | None
    seed: int = 0
    fusion_trials: Sequence[tuple[float, float]] = ()
    ranker: Mapping[str, Any] | None = None
    recommended: str = ""
    new: NewItemLists | None = None
    all_counts: bool = False


@dataclass(frozen=True)
class Background:
    """What a report shows beside what was measured.

    Attributes:
        config: the section `evaluate`.
        dataset: items, users, sequences and their profile.
        seed: of the experiment; it chooses the examples.
        name: of the experiment.
        training: by stage one record an epoch (`training.json`).
        quality: of the codes (`quality.json`).
        codes: of the items, uint16, shape (items, levels); shown beside the items in the examples.
        domination: of the integrated embedding (`domination.json`).
        experiment: the whole configuration; {} where none is to be shown.
    """

    config: EvaluateConfig
    dataset: Dataset
    seed: int = 0
    name: str = ""
    training: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    codes: npt.NDArray[np.uint16] | None = None
    domination: Mapping[str, Any] = field(default_factory=dict)
    experiment: Mapping[str, Any] = field(default_factory=dict)
