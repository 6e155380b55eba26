"""Stage `evaluate`: how good the recommendations are, by every scorer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prorec.tasks.execution.chunks import by_workers
from prorec.tasks.execution.reads import view, whole
from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.execution.worker import not_reached
from prorec.tasks.stages.memory import of_evaluate
from prorec.tasks.tracking.metrics import measured
from prorec_core.config import Experiment
from prorec_core.kept import Make, Making, Open
from prorec_core.progress import silent
from prorec_core.stages.work import StageWork

_log = logging.getLogger(__name__)


@stage(
    "evaluate",
    reads=("preprocess", "embed_text", "train_collaborative", "align", "quantize", "train_generator"),
    config=("evaluate", "quantize.embedding", "train_on_validation", "seed"),
    libraries=("torch", "numpy", "scipy", "polars"),
    memory=of_evaluate,
)
def evaluate(work: Work) -> dict[str, float]:
    """Rank the whole catalogue for every user, and measure."""
    from prorec_core.stages.evaluate import evaluate as run

    compute = work.experiment.compute
    if compute.engine == "local":
        return measured(run(work).metrics)
    experiment, declared, name = whole(work.experiment)
    inputs = {each: str(path.absolute()) for each, path in work.inputs.items()}
    open_ = partial(_lister, experiment.model_dump_json(), declared, name, inputs)

    @contextmanager
    def spread(open_: Open) -> Iterator[Making]:
        with by_workers(open_, compute, _tell) as making:
            work.made_with.update(engine="ray", workers=str(compute.workers))
            yield making

    return measured(run(work, spread, open_).metrics)


def _lister(experiment: str, declared: tuple[str, ...], name: str, inputs: Mapping[str, str]) -> Make:
    """Makes a worker ready that makes lists.

    Raises:
        UserError: its machine does not see what the stage reads.
    """
    from prorec_core.stages.evaluate import lister

    folders = {each: Path(path) for each, path in inputs.items()}
    for path in folders.values():
        if not path.is_dir():
            raise not_reached(path)
    part: Any = view(Experiment.model_validate_json(experiment), declared, name)
    return lister(StageWork(part, {}, folders, Path(), Path(), silent))


def _tell(text: str) -> None:
    _log.warning("evaluate: %s", text)
