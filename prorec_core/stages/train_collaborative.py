"""Stage `train_collaborative` from files to files.

Knows what the stage reads and leaves; knows nothing of who keeps it.
"""

from __future__ import annotations

from prorec_core.sequential.stage import train_collaborative as run
from prorec_core.sequential.start import Start
from prorec_core.sequential.trained import CollaborativeModel
from prorec_core.stages.before import Before
from prorec_core.stages.inputs import read_dataset
from prorec_core.stages.work import StageWork


def train_collaborative(work: StageWork, before: Before | None = None) -> CollaborativeModel:
    """Train the sequential recommender that knows items by their ids, anew or from an earlier one.

    Raises:
        UserError: the earlier one is of another shape.
    """
    experiment, dataset, start = work.experiment, read_dataset(work), None
    config = experiment.collaborative
    if before is not None:
        start = Start(CollaborativeModel.load(before.artifact("train_collaborative")), before.rows(dataset))
        config = experiment.continuing.shortened(config)
    masked, runtime = experiment.evaluate.mask_history, work.runtime(config.precision)
    result = run(config, dataset.sequences, experiment.seed, runtime, mask_history=masked, start=start)
    if work.keeps:
        result.save(work.folder)
    return result
