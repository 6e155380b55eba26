"""Stage `train_collaborative` from files to files.

Knows what the stage reads and leaves; knows nothing of who keeps it.
"""

from __future__ import annotations

from prorec_core.sequential.stage import train_collaborative as run
from prorec_core.sequential.trained import CollaborativeModel
from prorec_core.stages.inputs import read_dataset
from prorec_core.stages.work import StageWork


def train_collaborative(work: StageWork) -> CollaborativeModel:
    """Train the sequential recommender that knows items by their ids."""
    experiment = work.experiment
    sequences = read_dataset(work).sequences
    masked, runtime = experiment.evaluate.mask_history, work.runtime(experiment.collaborative.precision)
    result = run(experiment.collaborative, sequences, experiment.seed, runtime, mask_history=masked)
    result.save(work.folder)
    return result
