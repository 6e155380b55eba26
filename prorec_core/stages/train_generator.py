"""Stage `train_generator` from files to files. Knows what the stage reads and leaves; knows nothing of who keeps it."""

from __future__ import annotations

from collections.abc import Iterator

from prorec_core.alignment.trained import AlignedModel
from prorec_core.generation.ranker_file import RANKER_FILE, GivenRanker, given_ranker, save_ranker
from prorec_core.generation.stage import GeneratorInputs
from prorec_core.generation.stage import train_generator as run
from prorec_core.generation.trained import TrainedGenerator, network_of
from prorec_core.quantization.quantized import Quantized
from prorec_core.stages.before import Before
from prorec_core.stages.inputs import quantized_embedding, read_dataset, texts
from prorec_core.stages.work import StageWork


def train_generator(
    work: StageWork, before: Before | None = None, ranker: GivenRanker | None = None
) -> TrainedGenerator:
    """Train Stage II: generate codes, distil back what quantization lost, and rank what is found.

    Args:
        work: of the stage.
        before: an earlier training, from which this one goes on.
        ranker: the one that the experiment gives, where somebody has read it already.

    Raises:
        UserError: the Stage-I teacher cannot read histories as long as the generator's, the loss is no longer a
            number, or the file of a ranker holds none.
    """
    experiment = work.experiment
    ranker = ranker or given_ranker(experiment.generator, own=not experiment.evaluate.mask_history)
    quantized = Quantized.load(work.inputs["quantize"])
    centroids = quantized.level_centroids
    config, start = experiment.generator, None
    if before is not None:
        start = TrainedGenerator.load(before.artifact("train_generator")).tensors
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
        ranker=ranker,
    )
    result = run(inputs, experiment.seed, work.runtime(experiment.generator.precision))
    if work.keeps:
        result.save(work.folder)
        if (network := network_of(result.tensors)) is not None:
            save_ranker(work.folder / RANKER_FILE, result.config["ranker"], network.of_all())
    return result


def remarks(trained: TrainedGenerator) -> Iterator[str]:
    """What somebody who trained it has to know of it, a sentence each."""
    for text in trained.config["not_applied"]:
        yield f"not applied: {text}"
    if not trained.config["validation_tells"]:
        yield "nothing was chosen on validation, where every score has an NDCG@10 of 0; the report tells more"
