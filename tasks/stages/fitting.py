"""An experiment's open numbers, found once its data are there: between `preprocess` and all that reads them.

Knows where a profile is and which model is gone on from; the rule stands in `prorec_core.fitting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prorec.tasks.execution.events import Notice, emit
from prorec.tasks.stages.start import Base, base_of
from prorec.tasks.tracking import store
from prorec_core import fitting, versions
from prorec_core.artifacts import MANIFEST, ArtifactRef, read_json
from prorec_core.config import Experiment

_OF_ITS_SHAPE = {
    "train_collaborative": ("collaborative.dim", "collaborative.max_history"),
    "align": ("align.max_history", "align.graph"),
    "train_generator": ("generator.dim", "generator.max_history"),
}
"""By stage what a model that is gone on from has once for all, as its config.json says."""


def fitted(experiment: Experiment, preprocess: ArtifactRef, *, tell: bool = False) -> Experiment:
    """The experiment as all stages after `preprocess` run it.

    Args:
        experiment: as it was given.
        preprocess: its data.
        tell: say on the screen what was left open and what it came to.

    Raises:
        UserError: what it says does not go together with what follows from the data.
    """
    if not fitting.open_fields(experiment):
        return experiment
    profile = read_json(store.fetch(preprocess) / "profile.json")
    found = fitted_to(experiment, profile)
    if tell:
        pin = "to pin it: prorec config show NAME_OR_YAML --data > FILE.yaml"
        emit(Notice(f"settings {fitting.told(experiment, found, fitting.Size.of(profile))}; {pin}"))
    return found


def fitted_to(experiment: Experiment, profile: Mapping[str, Any]) -> Experiment:
    """The same from what `preprocess` found (`profile.json`).

    What goes on from a model keeps its shape, however the data have grown.
    """
    base = base_of(experiment)
    return fitting.fitted(experiment, fitting.Size.of(profile), _shape(base) if base else None)


def _shape(base: Base) -> dict[str, Any]:
    found: dict[str, Any] = {
        "quantize.codes": read_json(base.artifact("quantize") / MANIFEST)["config"]["quantize"]["codes"]
    }
    for stage, fields in _OF_ITS_SHAPE.items():
        record = versions.read(base.artifact(stage) / "config.json")
        for field in fields:
            section, name = field.split(".")
            found[field] = record[section][name]
    return found
