"""Stage `quantize` from files to files. Knows what the stage reads and leaves; knows nothing of who keeps it."""

from __future__ import annotations

from prorec_core.data.dataset import Dataset
from prorec_core.quantization.quantized import Quantized
from prorec_core.quantization.stage import quantize as run
from prorec_core.quantization.stage import with_new
from prorec_core.stages.inputs import new_quantized_embedding, quantized_embedding
from prorec_core.stages.work import StageWork


def quantize(work: StageWork) -> Quantized:
    """Quantize the chosen embedding, and give every item a tuple of its own.

    Raises:
        UserError: embeddings that are not finite, or collisions that cannot be resolved.
    """
    experiment = work.experiment
    dataset = Dataset.load(work.inputs["preprocess"])
    item_ids = dataset.items["item_id"].to_list()
    result = run(experiment.quantize, quantized_embedding(work), item_ids, experiment.seed, work.report)
    if dataset.new_items is not None:
        new_ids = dataset.new_items.items["item_id"].to_list()
        result = with_new(result, experiment.quantize, new_quantized_embedding(work), new_ids)
    result.save(work.folder)
    return result
