"""Stage `quantize`: every item's tuple of codes."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.inputs import new_quantized_embedding, quantized_embedding
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
    from prorec_core.data.dataset import Dataset
    from prorec_core.quantization.stage import quantize as run
    from prorec_core.quantization.stage import with_new

    experiment = work.experiment
    dataset = Dataset.load(work.inputs["preprocess"])
    item_ids = dataset.items["item_id"].to_list()
    result = run(experiment.quantize, quantized_embedding(work), item_ids, experiment.seed, work.report)
    if dataset.new_items is not None:
        new_ids = dataset.new_items.items["item_id"].to_list()
        result = with_new(result, experiment.quantize, new_quantized_embedding(work), new_ids)
    result.save(work.folder)
    return numbers(result.quality)
