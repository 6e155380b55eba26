"""Stages `evaluate_NAME`, one a heuristic: what nothing is trained for, in the protocol of the others."""

from __future__ import annotations

from functools import partial

from prorec.tasks.execution.stage import Stage, Work
from prorec.tasks.tracking.metrics import measured
from prorec_core.metrics.scorers import SCORERS
from prorec_core.stages.inputs import read_dataset, texts


def measure(scorer: str, work: Work) -> dict[str, float]:
    """Choose the heuristic's numbers on validation, rank by it, and its best items by a light ranker; measure both."""
    from prorec_core.evaluation.heuristics.measuring import heuristic_inputs
    from prorec_core.evaluation.stage import evaluate as run

    config, texts_NS = work.experiment.evaluate, texts(work) if SCORERS[scorer].reads_texts else None
    result = run(heuristic_inputs(scorer, read_dataset(work), config, texts_NS, work.report), work.report)
    result.save(work.folder)
    return measured(result.metrics)


def of_heuristic(scorer: str) -> Stage:
    """The stage that measures a heuristic."""
    return Stage(
        name=f"evaluate_{scorer}",
        reads=("preprocess", "embed_text") if SCORERS[scorer].reads_texts else ("preprocess",),
        body=partial(measure, scorer),
        module=__name__,
        config=("evaluate", "train_on_validation"),
        libraries=("torch", "numpy", "scipy", "polars"),
    )
