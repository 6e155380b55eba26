"""Stage `evaluate`: how good the recommendations are, by every scorer."""

from __future__ import annotations

from tasks.stage import Work, stage


@stage(
    "evaluate",
    reads=("preprocess", "embed_text", "train_collaborative", "align", "quantize", "train_generator"),
)
def evaluate(work: Work) -> dict[str, float]:
    """Rank the whole catalogue for every user, and measure."""
    raise NotImplementedError
