"""PRORec's own work, as a user runs it: the stages' bodies, an epoch with its validation and checkpoint a lap."""

from __future__ import annotations

from pathlib import Path

from benchmarks.experiments import changed
from benchmarks.inputs import work_of
from benchmarks.laps import Laps
from prorec.tasks.stages.pipeline import STAGES
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Split
from prorec_core.generation.candidates import find_candidates
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.progress import Progress
from prorec_core.quantization.quantized import Quantized
from prorec_core.stages.inputs import quantized_embedding

_ENDLESS = {"epochs": 1000, "patience": 1000}
"""The starter says when it is enough."""


def preprocessing(experiment: Experiment, folder: Path, laps: Laps) -> None:
    """Laps of reading, filtering, ordering and writing."""
    stage = STAGES["preprocess"]
    work = work_of(stage, experiment, folder, "preprocess_again")
    laps.start()
    while True:
        stage.body(work)
        laps.lap()


def align_epoch(experiment: Experiment, folder: Path, laps: Laps) -> None:
    """Laps of one epoch of stage `align`; the first one also reads its inputs and builds the model."""
    _epochs("align", changed(experiment, {"align": _ENDLESS}), folder, laps)


def generator_epoch(experiment: Experiment, folder: Path, laps: Laps) -> None:
    """Laps of one epoch of stage `train_generator`; the first one also reads its inputs and builds the model."""
    _epochs("train_generator", changed(experiment, {"generator": _ENDLESS}), folder, laps)


def beam_search(experiment: Experiment, folder: Path, laps: Laps, beams: int) -> None:
    """Laps of beam search for the test items of all users, what they already have left out."""
    work = work_of(STAGES["evaluate"], experiment, folder, f"beam_search_{beams}")
    generator = restore_generator(
        TrainedGenerator.load(work.inputs["train_generator"]),
        Quantized.load(work.inputs["quantize"]).table.codes,
        quantized_embedding(work),
        work.runtime().device,
    )
    histories = Dataset.load(work.inputs["preprocess"]).sequences.histories(Split.TEST)
    laps.start()
    while True:
        find_candidates(generator, histories, beams, beams, with_dense=False)
        laps.lap()


def _epochs(name: str, experiment: Experiment, folder: Path, laps: Laps) -> None:
    def report(progress: Progress) -> None:
        if progress.unit == "epoch":
            laps.lap()

    work = work_of(STAGES[name], experiment, folder, f"{name}_epochs", report)
    laps.start()
    STAGES[name].body(work)
