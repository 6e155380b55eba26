"""Stage `quantize`: every item's tuple of codes."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.given import table_digest
from prorec.tasks.stages.memory import of_quantize
from prorec.tasks.stages.start import base_of, start_digest
from prorec.tasks.tracking.metrics import numbers
from prorec_core.artifacts import sha256_json
from prorec_core.config import Experiment


def _outside(experiment: Experiment) -> str:
    """Of a table that is given, and of what is gone on from."""
    table, start = table_digest(experiment), start_digest(experiment)
    return sha256_json([table, start]) if start else table


@stage(
    "quantize",
    reads=("preprocess", "embed_text", "train_collaborative", "align"),
    config=("quantize", "continuing.codes", "seed"),
    libraries=("numpy", "scipy", "scikit-learn", "torch", "polars", "pyarrow", "orjson"),
    outside=_outside,
    memory=of_quantize,
)
def quantize(work: Work) -> dict[str, float]:
    """Quantize the chosen embedding, and give every item a tuple of its own."""
    from prorec_core.stages.quantize import quantize as run

    return numbers(run(work, base_of(work.experiment)).quality)
