"""Stage `train_collaborative`: item vectors from behaviour alone."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.memory import of_collaborative


@stage(
    "train_collaborative",
    reads=("preprocess",),
    config=("collaborative", "evaluate.mask_history", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "polars"),
    validates=True,
    memory=of_collaborative,
)
def train_collaborative(work: Work) -> None:
    """Train the sequential recommender that knows items by their ids."""
    from prorec_core.stages.train_collaborative import train_collaborative as run

    run(work)
