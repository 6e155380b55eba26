"""Stage `train_collaborative`: item vectors from behaviour alone."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.inputs import read_dataset
from prorec.tasks.stages.memory import of_collaborative
from prorec.tasks.stages.start import base_of, expect_unseen, start_digest


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
    from prorec_core.sequential.stage import train_collaborative as run
    from prorec_core.sequential.trained import CollaborativeModel

    experiment, dataset, base, start = work.experiment, read_dataset(work), base_of(work.experiment), None
    config = experiment.collaborative
    if base is not None:
        expect_unseen(work, base, dataset)
        start = base.start(CollaborativeModel.load(base.artifact("train_collaborative")), dataset)
        config = experiment.continuing.shortened(config)
    masked, runtime = experiment.evaluate.mask_history, work.runtime(config.precision)
    run(config, dataset.sequences, experiment.seed, runtime, mask_history=masked, start=start).save(work.folder)
