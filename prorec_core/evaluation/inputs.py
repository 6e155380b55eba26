"""All that an evaluation reads. Knows what came from which stage; knows nothing of how it is measured or shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.config import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Split
from prorec_core.evaluation.ranking import TopItems

SCORERS = ("fused", "generative", "dense", "aligned", "popularity")
"""The scorers in the order in which they are shown."""

MEANING = {
    "fused": "Stage II: log-probability of the codes plus λ times the dense one",
    "generative": "Stage II: beam search over the item codes alone",
    "dense": "what codes are fused with: Stage I's score, or the distillation head's",
    "aligned": "Stage I: the sequential model over the integrated embedding",
    "popularity": "the items that occur most in training, the same for everyone",
}


@dataclass(frozen=True)
class EvaluationInputs:
    """What is measured and what is shown beside it.

    Attributes:
        config: the section `evaluate`.
        dataset: items, users, sequences and their profile; its `ties` are part of the protocol.
        lists: for validation and test the lists of each scorer, a row a user, all of one length; popularity is
            added by `evaluate`.
        fusion_weight: λ of the dense score in the fused one; None where there is no fused scorer.
        seed: of the experiment.
        name: of the experiment.
        fusion_trials: the weights λ tried and the validation NDCG@10 of each.
        training: by stage one record an epoch (`training.json`).
        quality: of the codes (`quality.json`).
        codes: of the items, uint16, shape (items, levels); shown beside the items in the examples.
        domination: of the integrated embedding (`domination.json`).
        experiment: the whole configuration, for display.
    """

    config: EvaluateConfig
    dataset: Dataset
    lists: Mapping[Split, Mapping[str, TopItems]]
    fusion_weight: float | None
    seed: int = 0
    name: str = ""
    fusion_trials: Sequence[tuple[float, float]] = ()
    training: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    codes: npt.NDArray[np.uint16] | None = None
    domination: Mapping[str, Any] = field(default_factory=dict)
    experiment: Mapping[str, Any] = field(default_factory=dict)


def in_order(scorers: Mapping[str, Any]) -> list[str]:
    """Names of scorers as they are shown: the known ones first, then any others by name."""
    return [name for name in SCORERS if name in scorers] + sorted(set(scorers) - set(SCORERS))
