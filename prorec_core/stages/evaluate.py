"""Stage `evaluate` from files to files. Knows what the stage reads and leaves; knows nothing of who keeps it."""

from __future__ import annotations

import dataclasses

import numpy as np

from prorec_core.alignment.trained import AlignedModel
from prorec_core.data.dataset import Dataset
from prorec_core.evaluation.lists import Models, new_item_lists, recommend_lists
from prorec_core.evaluation.measured import Evaluation
from prorec_core.evaluation.new_items import NewItemLists
from prorec_core.evaluation.stage import EvaluationInputs
from prorec_core.evaluation.stage import evaluate as run
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.quantization.quantized import Quantized
from prorec_core.stages.inputs import new_quantized_embedding, quantized_embedding, read_dataset
from prorec_core.stages.work import StageWork


def evaluate(work: StageWork) -> Evaluation:
    """Rank the whole catalogue for every user, and measure."""
    experiment, runtime = work.experiment, work.runtime()
    dataset = read_dataset(work)
    quantized = Quantized.load(work.inputs["quantize"])
    trained = TrainedGenerator.load(work.inputs["train_generator"])
    aligned = AlignedModel.load(work.inputs["align"])
    generator = restore_generator(trained, quantized.table.codes, quantized_embedding(work), runtime.device)
    models = Models(generator, trained.fusion_weight, trained.ranker, aligned)
    inputs = EvaluationInputs(
        config=experiment.evaluate,
        dataset=dataset,
        lists=recommend_lists(experiment.evaluate, models, dataset.sequences, runtime.report),
        fusion_weight=trained.fusion_weight,
        seed=experiment.seed,
        fusion_trials=[tuple(trial) for trial in trained.config["fusion_trials"]],
        ranker=trained.config["ranker"],
        recommended=trained.recommended,
        new=_with_new_items(work, dataset, models, trained, quantized),
    )
    result = run(inputs, runtime.report)
    result.save(work.folder)
    return result


def _with_new_items(
    work: StageWork, dataset: Dataset, models: Models, trained: TrainedGenerator, quantized: Quantized
) -> NewItemLists | None:
    """Recommendations from the catalogue with the new items that were held out; None where none were."""
    if dataset.new_items is None:
        return None
    runtime = work.runtime()
    embeddings = np.concatenate([quantized_embedding(work), new_quantized_embedding(work)])
    everything = dataclasses.replace(
        models,
        generator=restore_generator(trained, quantized.all_items().codes, embeddings, runtime.device),
        aligned=models.aligned.with_new(),
    )
    return new_item_lists(work.experiment.evaluate, everything, dataset, runtime.report)
