"""Stage `align`: the text embedding adapted, aligned and fused with the collaborative one."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.execution.together import trained
from prorec.tasks.stages.memory import of_align
from prorec.tasks.stages.start import base_of, start_digest
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
    from prorec_core.alignment.trained import AlignedModel
    from prorec_core.stages.align import align as run

    return numbers(trained(work, run, AlignedModel.load, base_of(work.experiment)).domination)
