"""What is timed of ours is what stages do, lap after lap, until the starter has enough."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ours
from benchmarks.experiments import changed
from benchmarks.inputs import prepare
from prorec_core.config import Experiment

SMALL = {"dim": 16, "layers": 1}


class ThreeLaps:
    """A starter that has enough after three laps."""

    def __init__(self) -> None:
        self.started, self.ended = 0, 0

    def start(self) -> None:
        self.started += 1

    def lap(self) -> None:
        self.ended += 1
        if self.ended == 3:
            raise InterruptedError


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    sections = {"data": {"demo": {"users": 120, "items": 50}}, "collaborative": SMALL, "generator": SMALL}
    return Experiment.model_validate({**sections, "quantize": {"codes": 4}, "device": "cpu"})


@pytest.fixture(scope="module")
def prepared(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    prepare(experiment, folder)
    return folder


@pytest.mark.parametrize(
    "subject",
    [ours.preprocessing, ours.align_epoch, ours.generator_epoch, partial(ours.beam_search, beams=10)],
    ids=["preprocess", "align", "generator", "beams"],
)
def test_a_lap_after_the_other(experiment: Experiment, prepared: Path, subject: Callable[..., Any]) -> None:
    laps = ThreeLaps()
    before = {path: path.read_bytes() for path in prepared.glob("*/model.safetensors")}
    with pytest.raises(InterruptedError):
        subject(experiment, prepared, laps)
    assert (laps.started, laps.ended) == (1, 3)
    assert len(before) == 3 and before == {path: path.read_bytes() for path in before}, "left as they were"


def test_an_experiment_with_other_values_is_otherwise_the_same(experiment: Experiment) -> None:
    other = changed(experiment, {"align": {"epochs": 7}})
    assert other.align.epochs == 7 and experiment.align.epochs != 7
    assert changed(other, {"align": {"epochs": experiment.align.epochs}}) == experiment
