"""One stage at one size in a process of its own: `python -m benchmarks.scale_stage NAME FOLDER`.

The folder holds `experiment.json` and, in a folder each, what the stages before left. Prints one line of JSON: what it
took. Knows the stages' bodies, as a run calls them, and batch recommendations; knows neither sizes nor budgets.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.inputs import work_of
from prorec.tasks.local.memory import peak_memory
from prorec.tasks.stages.pipeline import STAGES
from prorec_core.artifacts import write_manifest
from prorec_core.config import Experiment

RECOMMEND_ALL = "recommend-all"
NAMES = (*STAGES, RECOMMEND_ALL)
"""What is measured, each after all that it reads."""


def reads(name: str) -> tuple[str, ...]:
    """The stages that one rests on, or batch recommendations do."""
    return (*STAGES["train_generator"].reads, "train_generator") if name == RECOMMEND_ALL else STAGES[name].reads


def run(name: str, folder: Path) -> None:
    """Do the work; what an interrupted one has left is removed first."""
    experiment = Experiment.model_validate_json((folder / "experiment.json").read_bytes())
    for left in (folder / name, folder / f"{name}_checkpoints"):
        shutil.rmtree(left, ignore_errors=True)
    if name == RECOMMEND_ALL:
        _recommend_all(experiment, folder)
        return
    stage = STAGES[name]
    work = work_of(stage, experiment, folder)
    stage.body(work)
    write_manifest(work.folder, name, stage.values(experiment), {}, work.made_with, stage.version)
    shutil.rmtree(work.checkpoints, ignore_errors=True)


def measured(work: Callable[[], None]) -> dict[str, float]:
    """Do work, and say what it took: seconds of the clock and of the processor, and the largest memory, in bytes."""
    with peak_memory() as peak:
        before, started = _processor(), time.perf_counter()
        work()
        found = {"seconds": time.perf_counter() - started, "processor_seconds": _processor() - before}
    found["peak_bytes"] = peak.bytes
    return found if peak.device_bytes is None else {**found, "device_bytes": peak.device_bytes}


def _recommend_all(experiment: Experiment, folder: Path) -> None:
    """A model's files put together, read, and asked for ten items for everyone."""
    from prorec_core.data.dataset import Dataset
    from prorec_core.data.histories import DatasetHistories
    from prorec_core.generation.batch import BatchSettings, recommend_all
    from prorec_core.generation.recommender import Recommender
    from prorec_core.stages.bundle import fill_bundle
    from prorec_core.training.runtime import make_runtime

    work = work_of(STAGES["train_generator"], experiment, folder, RECOMMEND_ALL)
    bundle, output = work.folder / "bundle", work.folder / "recommendations.parquet"
    fill_bundle(bundle, replace(work, folder=folder / "train_generator"))
    recommender = Recommender.load(bundle, str(make_runtime(experiment.device).device))
    histories = DatasetHistories(Dataset.load(folder / "preprocess"))
    recommend_all(recommender, histories, BatchSettings(10, True, 1000, "", ""), output)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    asked, place = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(measured(lambda: run(asked, place))))
