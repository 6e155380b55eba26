"""Which stages measure what a variant may stand on. Knows stages and scorers; knows nothing of how they are run."""

from __future__ import annotations

from collections.abc import Mapping

from prorec.tasks.execution.stage import Stage
from prorec.tasks.stages.embed_text import embed_text
from prorec.tasks.stages.evaluate import evaluate
from prorec.tasks.stages.evaluate_aligned import evaluate_aligned
from prorec.tasks.stages.evaluate_collaborative import evaluate_collaborative
from prorec.tasks.stages.evaluate_counts import evaluate_counts
from prorec.tasks.stages.evaluate_given import evaluate_given
from prorec.tasks.stages.evaluate_heuristics import of_heuristic
from prorec.tasks.stages.evaluate_two_stream import evaluate_two_stream
from prorec.tasks.stages.pipeline import STAGES, up_to
from prorec.tasks.stages.preprocess import preprocess
from prorec.tasks.stages.report import report_of
from prorec_core.metrics.scorers import GENERATOR, SCORERS, ranked_baselines

_OF_MODELS: Mapping[str, tuple[str, Stage]] = {
    "collaborative": ("train_collaborative", evaluate_collaborative),
    "aligned": ("align", evaluate_aligned),
    "two_stream": ("train_generator", evaluate_two_stream),
    "given": (preprocess.name, evaluate_given),
}
"""By scorer the last stage of its model, or of the data alone, and what measures it."""

_OF_HEURISTICS: Mapping[str, tuple[str, Stage]] = {
    name: (embed_text.name if row.reads_texts else preprocess.name, of_heuristic(name))
    for name, row in SCORERS.items()
    if row.heuristic
}
"""By scorer the last stage that it reads, and what measures it."""


def standing() -> list[str]:
    """All that may stand for a variant: a generator, and every scorer that is measured without one."""
    counts = [name for name, row in SCORERS.items() if row.counts]
    return [GENERATOR, *counts, *_OF_HEURISTICS, *_OF_MODELS, *ranked_baselines()]


def pipeline_of(scorer: str) -> tuple[Stage, ...]:
    """The stages of a variant, in order; of two streams those before the evaluation run once for each.

    Args:
        scorer: one of `standing`.
    """
    if scorer == GENERATOR:
        return tuple(STAGES.values())
    scorer = ranked_baselines().get(scorer, scorer)
    last, measures = {**_OF_MODELS, **_OF_HEURISTICS}.get(scorer, (preprocess.name, evaluate_counts))
    return (*up_to(last), measures, report_of(measures))


def measuring(stages: tuple[Stage, ...]) -> int:
    """The place of the stage that measures, among those of `pipeline_of`."""
    return next(place for place, stage in enumerate(stages) if stage.name.startswith(evaluate.name))
