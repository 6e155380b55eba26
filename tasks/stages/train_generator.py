"""Stage `train_generator`: the model that generates the next item's codes, and its registration in MLflow."""

from __future__ import annotations

import logging

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.inputs import quantized_embedding, read_dataset, texts
from prorec.tasks.stages.memory import of_generator
from prorec.tasks.stages.registration import register
from prorec.tasks.stages.start import base_of, start_digest

_log = logging.getLogger(__name__)


@stage(
    "train_generator",
    reads=("preprocess", "embed_text", "train_collaborative", "align", "quantize"),
    config=(
        "generator",
        "continuing",
        "quantize.embedding",
        "evaluate.fusion_weights",
        "evaluate.beams",
        "evaluate.mask_history",
        "train_on_validation",
        "seed",
        "name",
    ),
    libraries=("torch", "numpy", "scipy", "polars"),
    outside=start_digest,
    publish=register,
    validates=True,
    memory=of_generator,
)
def train_generator(work: Work) -> dict[str, float]:
    """Train Stage II: generate codes, distil back what quantization lost, and rank what is found."""
    from prorec_core.alignment.trained import AlignedModel
    from prorec_core.generation.stage import GeneratorInputs
    from prorec_core.generation.stage import train_generator as run
    from prorec_core.generation.trained import TrainedGenerator
    from prorec_core.quantization.quantized import Quantized

    experiment = work.experiment
    quantized = Quantized.load(work.inputs["quantize"])
    centroids = quantized.level_centroids
    base, config, start = base_of(experiment), experiment.generator, None
    if base is not None:
        start = TrainedGenerator.load(base.artifact("train_generator")).tensors
        config = experiment.continuing.shortened(config)
    inputs = GeneratorInputs(
        config=config,
        fusion_weights=experiment.evaluate.fusion_weights,
        beams=experiment.evaluate.beams,
        mask_history=experiment.evaluate.mask_history,
        sequences=read_dataset(work).sequences,
        codes=quantized.table.codes,
        codebooks=[*centroids, *[None] * (quantized.table.depth - len(centroids))],
        embeddings=quantized_embedding(work),
        integrated=experiment.quantize.embedding == "integrated",
        aligned=AlignedModel.load(work.inputs["align"]),
        texts=texts(work),
        start=start,
        same_codes=experiment.continuing.codes == "keep",
    )
    result = run(inputs, experiment.seed, work.runtime(experiment.generator.precision))
    result.save(work.folder)
    for text in result.config["not_applied"]:
        _log.warning("not applied: %s", text)
    if not result.config["validation_tells"]:
        _log.warning("nothing was chosen on validation, where every score has an NDCG@10 of 0; the report tells more")
    metrics = {} if result.fusion_weight is None else {"fusion_weight": result.fusion_weight}
    if "ndcg_at_10" in (result.config["ranker"] or {}):
        metrics["validation_ndcg_at_10_ranked"] = result.config["ranker"]["ndcg_at_10"]
    return metrics
