"""Stage `evaluate`: how good the recommendations are, by every scorer."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.memory import of_evaluate
from prorec.tasks.tracking.metrics import measured


@stage(
    "evaluate",
    reads=("preprocess", "embed_text", "train_collaborative", "align", "quantize", "train_generator"),
    config=("evaluate", "quantize.embedding", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "scipy", "polars"),
    memory=of_evaluate,
)
def evaluate(work: Work) -> dict[str, float]:
    """Rank the whole catalogue for every user, and measure."""
    from prorec_core.stages.evaluate import evaluate as run

    return measured(run(work).metrics)
