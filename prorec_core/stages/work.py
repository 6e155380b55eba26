"""What the body of a stage gets, whoever runs it: a part of an experiment, folders to read, one to fill.

Knows folders, progress and devices; knows nothing of stages, of what decides a cache key, or of who keeps what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec_core.config import Experiment
from prorec_core.progress import Report

if TYPE_CHECKING:
    from prorec_core.training.runtime import Runtime
    from prorec_core.training.workers import Workers


@dataclass(frozen=True)
class StageWork:
    """What a stage's body gets.

    Attributes:
        experiment: the experiment, or the part of it that the stage declared.
        config: the values of that part by dotted name, as its manifest holds them.
        inputs: a local folder with the files of each artifact that the stage reads, by stage.
        folder: an empty folder; what the body leaves there becomes the artifact.
        checkpoints: where it may keep what lets it go on after a crash.
        report: to be told how far it is.
        workers: those that do the work together, this process among them; None: it does it alone.
        made_with: on which kind of device and in which number format it was made; goes into the manifest.
    """

    experiment: Experiment
    config: Mapping[str, Any]
    inputs: Mapping[str, Path]
    folder: Path
    checkpoints: Path
    report: Report
    workers: Workers | None = field(default=None, kw_only=True)
    made_with: dict[str, str] = field(default_factory=dict, init=False)

    @property
    def keeps(self) -> bool:
        """Whether this process writes what is made: of several workers, which all make the same, the first one does."""
        return self.workers is None or self.workers.first

    def runtime(self, precision: str = "float32") -> Runtime:
        """Where models run, as the experiment says.

        Args:
            precision: auto or float32, what the section of the stage says.
        """
        from prorec_core.training.runtime import make_runtime
        from prorec_core.training.workers import ALONE

        runtime = make_runtime(self.experiment.device, self.report, self.checkpoints, self.workers or ALONE)
        low = runtime.low_precision(precision)
        self.made_with.update(device=runtime.device.type, number_format="bfloat16" if low else "float32")
        return runtime
