"""What the benchmarks run on: the real data through the real stages, trained briefly.

Time depends on shapes and on how codes are shared among items, not on how good the models are, so an epoch or
two will do; for the same reason words hashed to 384 dimensions stand in for the text encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from benchmarks.experiments import changed, hashed_words
from prorec.tasks.execution.stage import Stage, Work
from prorec.tasks.stages.pipeline import STAGES, up_to
from prorec_core.config import Experiment
from prorec_core.data.embeddings import write_embeddings
from prorec_core.progress import Report, silent

if TYPE_CHECKING:
    from prorec.tasks.tracking.mlflow_runs import TrackedRun

BRIEF: dict[str, dict[str, Any]] = {
    "collaborative": {"epochs": 1},
    "align": {"epochs": 2},
    # With one weight and no ranker there is nothing to choose, so no search for all users.
    "generator": {"epochs": 1, "ranker": False, "ranker_weights": None, "ranker_file": None},
    "evaluate": {"fusion_weights": [1.0]},
}
"""What is trained before the benchmarks, and how long."""


def work_of(stage: Stage, experiment: Experiment, folder: Path, leaves: str = "", report: Report = silent) -> Work:
    """What the body of a stage gets.

    Args:
        stage: whose body it is.
        experiment: of which it sees what it declared.
        folder: holds every artifact in a folder with the stage's name.
        leaves: the folder in there for what it leaves, anew; by default the one of its name.
        report: told how far it is.
    """
    target = folder / (leaves or stage.name)
    target.mkdir()
    # No body asks for its run: only what publishes an artifact does.
    run = cast("TrackedRun", None)
    inputs = {name: folder / name for name in stage.reads}
    return Work(stage.part(experiment), {}, inputs, target, folder / f"{target.name}_checkpoints", report, run)


def prepare(experiment: Experiment, folder: Path) -> None:
    """Leave every stage's artifact below `folder`, up to the generator."""
    brief = changed(experiment, BRIEF)
    for stage in up_to("train_generator"):
        work = work_of(stage, brief, folder)
        if stage is STAGES["embed_text"]:
            texts = pl.read_parquet(folder / "preprocess" / "items.parquet")["text"].to_list()
            write_embeddings(work.folder / "embeddings.parquet", hashed_words(texts))
        else:
            stage.body(work)
