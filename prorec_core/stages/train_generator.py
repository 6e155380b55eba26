"""Stage `train_generator` from files to files. Knows what the stage reads and leaves; knows nothing of who keeps it."""

from __future__ import annotations

from collections.abc import Iterator

from prorec_core.alignment.trained import AlignedModel
from prorec_core.generation.stage import GeneratorInputs
from prorec_core.generation.stage import train_generator as run
from prorec_core.generation.trained import TrainedGenerator
from prorec_core.quantization.quantized import Quantized
from prorec_core.stages.inputs import quantized_embedding, read_dataset, texts
from prorec_core.stages.work import StageWork


def train_generator(work: StageWork) -> TrainedGenerator:
    """Train Stage II: generate codes, distil back what quantization lost, and rank what is found.

    Raises:
        UserError: the Stage-I teacher cannot read histories as long as the generator's, or the loss is no longer a
            number.
    """
    experiment = work.experiment
    quantized = Quantized.load(work.inputs["quantize"])
    centroids = quantized.level_centroids
    inputs = GeneratorInputs(
        config=experiment.generator,
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
    )
    result = run(inputs, experiment.seed, work.runtime(experiment.generator.precision))
    result.save(work.folder)
    return result


def remarks(trained: TrainedGenerator) -> Iterator[str]:
    """What somebody who trained it has to know of it, a sentence each."""
    for text in trained.config["not_applied"]:
        yield f"not applied: {text}"
    if not trained.config["validation_tells"]:
        yield "nothing was chosen on validation, where every score has an NDCG@10 of 0; the report tells more"
