"""Stage `train_collaborative`: item vectors from behaviour alone."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.execution.together import trained
from prorec.tasks.stages.memory import of_collaborative
from prorec.tasks.stages.start import base_of, start_digest


@stage(
    "train_collaborative",
    reads=("preprocess",),
    config=("collaborative", "continuing", "evaluate.mask_history", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "polars", "scipy"),
    outside=start_digest,
    validates=True,
    memory=of_collaborative,
)
def train_collaborative(work: Work) -> None:
    """Train the sequential recommender that knows items by their ids."""
    from prorec_core.sequential.trained import CollaborativeModel
    from prorec_core.stages.train_collaborative import train_collaborative as run

    trained(work, run, CollaborativeModel.load, base_of(work.experiment))
