"""Stage `align`: the text embedding adapted, aligned and fused with the collaborative one."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.stages.inputs import read_dataset
from prorec.tasks.stages.memory import of_align
from prorec.tasks.stages.start import base_of, expect_encoder, start_digest
from prorec.tasks.tracking.metrics import numbers


@stage(
    "align",
    reads=("preprocess", "embed_text", "train_collaborative"),
    config=("align", "continuing", "evaluate.mask_history", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "polars", "scipy"),
    outside=start_digest,
    validates=True,
    memory=of_align,
)
def align(work: Work) -> dict[str, float]:
    """Train Stage I: next-item prediction and cross-modality alignment, jointly."""
    from prorec_core.alignment.stage import align as run
    from prorec_core.alignment.trained import AlignedModel
    from prorec_core.data.embeddings import read_embeddings
    from prorec_core.sequential.trained import CollaborativeModel

    experiment, new = work.experiment, work.inputs["embed_text"] / "new_embeddings.parquet"
    dataset, base, start, config = read_dataset(work), base_of(work.experiment), None, work.experiment.align
    if base is not None:
        expect_encoder(work, base)
        start = base.start(AlignedModel.load(base.artifact("align")), dataset)
        config = experiment.continuing.shortened(config)
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
    )
    result.save(work.folder)
    return numbers(result.domination)
