"""What a tuning leaves on its MLflow run: trials, the best values, plots. Knows runs and files; knows no stage."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.metrics import numbers
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.tracking.retries import retrying
from prorec.tasks.tuning.study import Study, best_of
from prorec_core.artifacts import write_bytes, write_json
from prorec_core.visible import block_in_markdown

FOLDER = "tuning"
"""Where in the run's artifacts the files are."""

OBJECTIVE = "validation_ndcg_at_10"
STUDY_TAG = "prorec.study"
"""On the run of a tuning: the name of its study."""


def adopt(trials: Iterable[Mapping[str, Any]], parent: TrackedRun) -> None:
    """Have the runs of a study's earlier trials stand below this run, as its later ones do."""
    from mlflow.exceptions import MlflowException

    for each in trials:
        # A run may have been deleted since.
        with contextlib.suppress(MlflowException):
            if each["run_id"]:
                retrying(client().set_tag, each["run_id"], mlflow_runs.PARENT_TAG, parent.id)


def keep(run: TrackedRun, study: Study, fields: list[str], best_yaml: str) -> None:
    """Leave trials.json, best.yaml and plots/*.png with the run; the best value as metric, its values as parameters.

    Args:
        run: the tuning's.
        study: with at least one complete trial.
        fields: what was tuned.
        best_yaml: the best values as they stand in the file of an experiment.
    """
    from prorec_core.reports import tuning
    from prorec_core.reports.drawing import as_png

    trials, importances = study.trials(), study.importances()
    best = best_of(trials)
    assert best is not None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_json(folder / "trials.json", {"trials": trials, "importances": importances})
        write_bytes(folder / "best.yaml", best_yaml.encode())
        write_bytes(folder / "plots" / "history.png", as_png(tuning.history(trials)))
        write_bytes(folder / "plots" / "slices.png", as_png(tuning.slices(trials, fields, importances)))
        retrying(client().log_artifacts, run.id, str(folder), FOLDER)
    run.parameters({"best": best["values"]})
    run.metrics({f"best_{OBJECTIVE}": best["value"], **numbers({"importance": importances})})
    run.tags({mlflow_runs.NOTE_TAG: f"{tuning.table_markdown(trials)}\n\n{block_in_markdown(best_yaml, 'yaml')}"})
