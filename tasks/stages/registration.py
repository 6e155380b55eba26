"""A trained generator as a registered model. Knows names of models; knows nothing of the files that one is."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from prorec.tasks.execution.stage import Work
from prorec.tasks.registry import bundles
from prorec.tasks.tracking.mlflow_runs import experiment_name


def register(work: Work) -> Mapping[str, str]:
    """Log the generator as a model of the stage's run and register it as the experiment's newest version.

    Returns:
        Tags for the stage's run: where the model is, and the hash of its manifest.
    """
    from prorec_core.stages.bundle import fill_bundle

    name = experiment_name(work.experiment.name)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        example = fill_bundle(bundle, work)
        return bundles.publish(name, work.run.id, bundle, example)
