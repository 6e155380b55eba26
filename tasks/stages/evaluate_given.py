"""Stage `evaluate_given`: lists that another program made, in the protocol of the others."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.tracking.metrics import measured
from prorec_core.config import Experiment
from prorec_core.stages.inputs import read_dataset


def _outside(experiment: Experiment) -> str:
    """Of the lists."""
    from prorec_core.evaluation.given_table import digest

    return digest(experiment.evaluate, experiment.seed)


@stage(
    "evaluate_given",
    reads=("preprocess",),
    config=("evaluate", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "scipy", "polars", "orjson"),
    outside=_outside,
)
def evaluate_given(work: Work) -> dict[str, float]:
    """Measure the lists in a file."""
    from prorec_core.evaluation.given import given_inputs, read_given
    from prorec_core.evaluation.stage import evaluate as run

    config, seed, dataset = work.experiment.evaluate, work.experiment.seed, read_dataset(work)
    result = run(given_inputs(read_given(config, seed, dataset), dataset, config, seed), work.report)
    result.save(work.folder)
    return measured(result.metrics)
