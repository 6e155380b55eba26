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

SCORERS = ("ranked", "fused", "generative", "dense", "aligned", "popularity")
"""The scorers in the order in which they are shown."""

MEANING = {
    "ranked": "a linear ranker of what is found, by its scores, item-to-item counts, texts (unless ids alone are "
    "known) and popularity, with weights that validation users gave",
    "fused": "Stage II: log-probability of the codes plus λ times the dense one",
    "generative": "Stage II: beam search over the item codes alone",
    "dense": "what codes are fused with: Stage I's score, or the distillation head's",
    "aligned": "Stage I: the sequential model over the integrated embedding",
    "popularity": "the items that occur most in training, the same for everyone",
    "collaborative": "the sequential model that knows items by their ids",
    "item_to_item": "the items that occur together with the latest one",
    "two_stream": "two generators over two code tables: log-probability of the one plus λ times that of the other",
}


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
        lists: for validation and test the lists of each scorer, a row a user, all of one length; popularity is
            added by `evaluate`.
        fusion_weight: λ of the dense score in the fused one; None where there is no fused scorer.
        seed: of the experiment.
        fusion_trials: the weights λ tried and the validation NDCG@10 of each.
        ranker: its features and weights and, where it was fitted here, what each feature adds (`fit_ranker`); None
            where there is none.
        recommended: the scorer by which the model recommends; "" for the first that is shown.
        new: recommendations with the new items of the data set in the catalogue; None where there are none.
    """

    config: EvaluateConfig
    dataset: Dataset
    lists: Mapping[Split, Mapping[str, TopItems]]
    fusion_weight: float | None = None
    seed: int = 0
    fusion_trials: Sequence[tuple[float, float]] = ()
    ranker: Mapping[str, Any] | None = None
    recommended: str = ""
    new: NewItemLists | None = None


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


def in_order(scorers: Mapping[str, Any]) -> list[str]:
    """Names of scorers as they are shown: the known ones first, then any others by name."""
    return [name for name in SCORERS if name in scorers] + sorted(set(scorers) - set(SCORERS))
