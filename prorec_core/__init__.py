"""PRORec as a library: what `from prorec_core import …` gives is stable, what stands deeper may move.

Knows names alone: what a name stands for is imported when it is first asked for; what trains, with threads that
wait as `prorec run` has them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prorec_core.api import load_data, open_run, train
    from prorec_core.config import Experiment
    from prorec_core.data.dataset import Dataset
    from prorec_core.errors import UserError
    from prorec_core.evaluation.measured import Evaluation
    from prorec_core.generation.recommender import Recommendation, Recommender
    from prorec_core.generation.rules import Choice, Rule
    from prorec_core.progress import Progress
    from prorec_core.run import Run

_TRAINS = ("prorec_core.api", "prorec_core.run")
_PLACES = {
    "Choice": "prorec_core.generation.rules",
    "Dataset": "prorec_core.data.dataset",
    "Evaluation": "prorec_core.evaluation.measured",
    "Experiment": "prorec_core.config",
    "Progress": "prorec_core.progress",
    "Recommendation": "prorec_core.generation.recommender",
    "Recommender": "prorec_core.generation.recommender",
    "Rule": "prorec_core.generation.rules",
    "Run": "prorec_core.run",
    "UserError": "prorec_core.errors",
    "load_data": "prorec_core.api",
    "open_run": "prorec_core.api",
    "train": "prorec_core.api",
}
__all__ = [
    "Choice",
    "Dataset",
    "Evaluation",
    "Experiment",
    "Progress",
    "Recommendation",
    "Recommender",
    "Rule",
    "Run",
    "UserError",
    "load_data",
    "open_run",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    if _PLACES[name] in _TRAINS:
        importlib.import_module("prorec_core.threads").wait_briefly()
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
