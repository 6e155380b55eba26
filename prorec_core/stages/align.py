"""Stage `align` from files to files. Knows what the stage reads and leaves; knows nothing of who keeps it."""

from __future__ import annotations

from prorec_core.alignment.stage import align as run
from prorec_core.alignment.trained import AlignedModel
from prorec_core.data.embeddings import read_embeddings
from prorec_core.sequential.start import Start
from prorec_core.sequential.trained import CollaborativeModel
from prorec_core.stages.before import Before
from prorec_core.stages.inputs import read_dataset, read_sources
from prorec_core.stages.work import StageWork


def align(work: StageWork, before: Before | None = None) -> AlignedModel:
    """Train Stage I: next-item prediction and cross-modality alignment, jointly; anew or from an earlier one.

    Raises:
        UserError: the earlier one is of another shape, or its texts were embedded otherwise.
    """
    experiment, new = work.experiment, work.inputs["embed_text"] / "new_embeddings.parquet"
    dataset, start, config = read_dataset(work), None, experiment.align
    if before is not None:
        before.expect_encoder(work.inputs["embed_text"])
        start = Start(AlignedModel.load(before.artifact("align")), before.rows(dataset))
        config = experiment.continuing.shortened(config)
    # A single one is what E_S is, and has no share of its own.
    sources = {each.name: each.width for each in read_sources(work.inputs["embed_text"])}
    result = run(
        config,
        dataset.sequences,
        CollaborativeModel.load(work.inputs["train_collaborative"]),
        read_embeddings(work.inputs["embed_text"] / "embeddings.parquet", "embed_text"),
        experiment.seed,
        work.runtime(config.precision),
        mask_history=experiment.evaluate.mask_history,
        new_semantic=read_embeddings(new, "embed_text") if new.is_file() else None,
        base=start,
        sources=sources if len(sources) > 1 else None,
    )
    if work.keeps:
        result.save(work.folder)
    return result
