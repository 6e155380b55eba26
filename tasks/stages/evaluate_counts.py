"""Stage `evaluate_counts`: what needs no training, popularity and co-occurrence, in the protocol of the others."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.tracking.metrics import measured
from prorec_core.stages.inputs import read_dataset


@stage(
    "evaluate_counts",
    reads=("preprocess",),
    config=("evaluate", "train_on_validation"),
    libraries=("torch", "numpy", "scipy", "polars"),
)
def evaluate_counts(work: Work) -> dict[str, float]:
    """Rank by every scorer that needs the interactions alone."""
    from prorec_core.evaluation.stage import EvaluationInputs
    from prorec_core.evaluation.stage import evaluate as run

    config, dataset = work.experiment.evaluate, read_dataset(work)
    result = run(EvaluationInputs(config, dataset, {}, all_counts=True), work.report)
    result.save(work.folder)
    return measured(result.metrics)
