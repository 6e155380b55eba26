"""Stage `evaluate_counts`: what needs no training, popularity and co-occurrence, in the protocol of the others."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.inputs import read_dataset
from prorec.tasks.tracking.metrics import measured


@stage(
    "evaluate_counts",
    reads=("preprocess",),
    config=("evaluate", "train_on_validation"),
    libraries=("torch", "numpy", "scipy", "polars"),
)
def evaluate_counts(work: Work) -> dict[str, float]:
    """Rank by popularity, and by co-occurrence with the most recent item."""
    from prorec_core.data.sequences import Split
    from prorec_core.evaluation.baselines import item_to_item_lists
    from prorec_core.evaluation.inputs import EvaluationInputs
    from prorec_core.evaluation.stage import evaluate as run

    config, dataset = work.experiment.evaluate, read_dataset(work)
    sequences, length = dataset.sequences, min(config.list_length, dataset.sequences.n_items)
    training, masked = sequences.training(), config.mask_history
    lists = {
        split: {"item_to_item": item_to_item_lists(training, sequences.histories(split), length, masked=masked)}
        for split in (Split.VALIDATION, Split.TEST)
    }
    result = run(EvaluationInputs(config, dataset, lists), work.report)
    result.save(work.folder)
    return measured(result.metrics)
