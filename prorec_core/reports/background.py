"""What a report shows beside what was measured. Knows nothing of how it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.text.semantic import SemanticSource


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
        sources: what the text embedding E_S is made of.
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
    sources: Sequence[SemanticSource] = ()
    experiment: Mapping[str, Any] = field(default_factory=dict)
