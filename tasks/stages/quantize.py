"""Stage `quantize`: every item's tuple of codes."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.memory import of_quantize
from prorec.tasks.tracking.metrics import numbers


@stage(
    "quantize",
    reads=("preprocess", "embed_text", "train_collaborative", "align"),
    config=("quantize", "seed"),
    libraries=("numpy", "scipy", "scikit-learn", "torch", "polars"),
    memory=of_quantize,
)
def quantize(work: Work) -> dict[str, float]:
    """Quantize the chosen embedding, and give every item a tuple of its own."""
    from prorec_core.stages.quantize import quantize as run

    return numbers(run(work).quality)
