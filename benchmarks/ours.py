"""PRORec's own work, as a user runs it: the stage functions, an epoch with its validation and checkpoint a lap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.inputs import generator_inputs, sequential_inputs
from benchmarks.laps import Laps
from prorec_core.alignment.stage import align
from prorec_core.config import Experiment, Training
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Split
from prorec_core.data.stage import preprocess
from prorec_core.generation.candidates import find_candidates
from prorec_core.generation.stage import train_generator
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.progress import Progress
from prorec_core.training.runtime import Runtime, make_runtime

Config = TypeVar("Config", bound=Training)
_NEVER = 1000
"""Epochs and patience: the starter says when it is enough."""


def preprocessing(experiment: Experiment, folder: Path, laps: Laps) -> None:
    """Laps of reading, filtering, ordering and writing."""
    target = folder / "preprocess_again"
    target.mkdir()
    laps.start()
    while True:
        preprocess(experiment.data).save(target)
        laps.lap()


def align_epoch(experiment: Experiment, folder: Path, laps: Laps) -> None:
    """Laps of one epoch of stage `align`; the first one also builds the model."""
    data, start, text = sequential_inputs(folder)
    config = _endless(experiment.align)
    laps.start()
    align(
        config,
        data.sequences,
        start,
        text,
        experiment.seed,
        _runtime(folder / "align_epochs", laps),
    )


def generator_epoch(experiment: Experiment, folder: Path, laps: Laps) -> None:
    """Laps of one epoch of stage `train_generator`; the first one also builds the model."""
    endless = experiment.model_copy(update={"generator": _endless(experiment.generator)})
    inputs = generator_inputs(endless, folder)
    laps.start()
    train_generator(inputs, experiment.seed, _runtime(folder / "generator_epochs", laps))


def beam_search(experiment: Experiment, folder: Path, laps: Laps, beams: int) -> None:
    """Laps of beam search for the test items of all users, what they already have left out."""
    inputs = generator_inputs(experiment, folder)
    generator = restore_generator(
        TrainedGenerator.load(folder / "train_generator"),
        inputs.codes,
        inputs.embeddings,
        make_runtime(experiment.device).device,
    )
    histories = Dataset.load(folder / "preprocess").sequences.histories(Split.TEST)
    laps.start()
    while True:
        find_candidates(generator, histories, beams, beams, with_dense=False)
        laps.lap()


def _endless(config: Config) -> Config:
    return config.model_copy(update={"epochs": _NEVER, "patience": _NEVER})


def _runtime(checkpoints: Path, laps: Laps) -> Runtime:
    return make_runtime("cpu", _lap_an_epoch(laps), checkpoints)


def _lap_an_epoch(laps: Laps) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.unit == "epoch":
            laps.lap()

    return report
