"""The stages of the project and what follows what. Imports neither Prefect nor MLflow nor any work of a stage."""

from __future__ import annotations

from prorec.tasks.execution.stage import Stage
from prorec.tasks.stages.align import align
from prorec.tasks.stages.embed_text import embed_text
from prorec.tasks.stages.evaluate import evaluate
from prorec.tasks.stages.preprocess import preprocess
from prorec.tasks.stages.quantize import quantize
from prorec.tasks.stages.report import report
from prorec.tasks.stages.train_collaborative import train_collaborative
from prorec.tasks.stages.train_generator import train_generator

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        preprocess,
        embed_text,
        train_collaborative,
        align,
        quantize,
        train_generator,
        evaluate,
        report,
    )
}
"""The stages by name, each after all those that it reads."""


def up_to(name: str) -> tuple[Stage, ...]:
    """A stage with all that its result rests on, in the order in which they run."""
    wanted = {name}
    for stage in reversed(STAGES.values()):
        if stage.name in wanted:
            wanted.update(stage.reads)
    return tuple(stage for stage in STAGES.values() if stage.name in wanted)
