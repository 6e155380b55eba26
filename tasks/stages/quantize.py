"""Stage `quantize`: every item's tuple of codes."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.memory import of_quantize
from prorec.tasks.tracking.metrics import numbers
from prorec_core.config import Experiment


def _table_digest(experiment: Experiment) -> str:
    from prorec_core.errors import UserError
    from prorec_core.quantization.given_codes import digest

    try:
        return digest(experiment.quantize)
    except UserError:
        # The stage itself says where it was looked for, and fails.
        return "nowhere"


@stage(
    "quantize",
    reads=("preprocess", "embed_text", "train_collaborative", "align"),
    config=("quantize", "seed"),
    libraries=("numpy", "scipy", "scikit-learn", "torch", "polars", "pyarrow", "orjson"),
    outside=_table_digest,
    memory=of_quantize,
)
def quantize(work: Work) -> dict[str, float]:
    """Quantize the chosen embedding, and give every item a tuple of its own."""
    from prorec_core.stages.quantize import quantize as run

    return numbers(run(work).quality)
