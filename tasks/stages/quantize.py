"""Stage `quantize`: every item's tuple of codes."""

from __future__ import annotations

from dataclasses import replace

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.inputs import new_quantized_embedding, quantized_embedding
from prorec.tasks.stages.memory import of_quantize
from prorec.tasks.stages.start import base_of, start_digest
from prorec.tasks.tracking.metrics import numbers


@stage(
    "quantize",
    reads=("preprocess", "embed_text", "train_collaborative", "align"),
    config=("quantize", "continuing.codes", "seed"),
    libraries=("numpy", "scipy", "scikit-learn", "torch", "polars"),
    outside=start_digest,
    memory=of_quantize,
)
def quantize(work: Work) -> dict[str, float]:
    """Quantize the chosen embedding, and give every item a tuple of its own."""
    from prorec_core.data.dataset import Dataset
    from prorec_core.quantization.quantized import Quantized
    from prorec_core.quantization.stage import kept, with_new
    from prorec_core.quantization.stage import quantize as run

    experiment = work.experiment
    dataset = Dataset.load(work.inputs["preprocess"])
    item_ids = dataset.items["item_id"].to_list()
    base, embeddings = base_of(experiment), quantized_embedding(work)
    if base is not None and experiment.continuing.codes == "keep":
        # The version's own table: it may have items that came after the quantizer was fitted.
        before = replace(Quantized.load(base.artifact("quantize")), table=base.bundle.codes, new_items=None)
        result = kept(before, experiment.quantize, embeddings, item_ids)
    else:
        result = run(experiment.quantize, embeddings, item_ids, experiment.seed, work.report)
    if dataset.new_items is not None:
        new_ids = dataset.new_items.items["item_id"].to_list()
        result = with_new(result, experiment.quantize, new_quantized_embedding(work), new_ids)
    result.save(work.folder)
    return numbers(result.quality)
