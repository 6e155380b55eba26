"""Stage `embed_text`: the items' texts as vectors."""

from __future__ import annotations

from prorec.tasks.execution.stage import Work, stage
from prorec_core.config import Experiment


def _encoder_digest(experiment: Experiment) -> str:
    from prorec_core.stages.embed_text import encoder_digest

    return encoder_digest(experiment.text)


@stage(
    "embed_text",
    reads=("preprocess",),
    config=("text",),
    libraries=("torch", "transformers", "tokenizers", "sentence-transformers", "numpy", "polars"),
    outside=_encoder_digest,
)
def embed_text(work: Work) -> None:
    """Embed every item's text, equal texts once."""
    from prorec_core.stages.embed_text import embed_text as run

    run(work)
