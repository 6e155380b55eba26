"""Stage `train_generator`: the model that generates the next item's codes, and its registration in MLflow."""

from __future__ import annotations

import logging
from functools import partial

from prorec.tasks.execution.stage import Work, stage
from prorec.tasks.execution.together import trained
from prorec.tasks.stages.given import ranker_digest
from prorec.tasks.stages.memory import of_generator
from prorec.tasks.stages.registration import register
from prorec.tasks.stages.start import base_of, start_digest
from prorec_core.artifacts import sha256_json
from prorec_core.config import Experiment

_log = logging.getLogger(__name__)


def _outside(experiment: Experiment) -> str:
    """Of a ranker that is given, and of what is gone on from."""
    ranker, start = ranker_digest(experiment), start_digest(experiment)
    return sha256_json([ranker, start]) if ranker else start


@stage(
    "train_generator",
    reads=("preprocess", "embed_text", "train_collaborative", "align", "quantize"),
    config=(
        "generator",
        "continuing",
        "quantize.embedding",
        "evaluate.fusion_weights",
        "evaluate.beams",
        "evaluate.mask_history",
        "train_on_validation",
        "seed",
        "name",
    ),
    libraries=("torch", "numpy", "scipy", "polars"),
    outside=_outside,
    publish=register,
    validates=True,
    memory=of_generator,
)
def train_generator(work: Work) -> dict[str, float]:
    """Train Stage II: generate codes, distil back what quantization lost, and rank what is found."""
    from prorec_core.generation.ranker_file import given_ranker
    from prorec_core.generation.trained import TrainedGenerator
    from prorec_core.stages.train_generator import remarks
    from prorec_core.stages.train_generator import train_generator as run

    # Read here and not by workers, which may be elsewhere.
    ranker = given_ranker(work.experiment.generator, own=not work.experiment.evaluate.mask_history)
    result = trained(work, partial(run, ranker=ranker), TrainedGenerator.load, base_of(work.experiment))
    for text in remarks(result):
        _log.warning("%s", text)
    metrics = {} if result.fusion_weight is None else {"fusion_weight": result.fusion_weight}
    if "ndcg_at_10" in (result.config["ranker"] or {}):
        metrics["validation_ndcg_at_10_ranked"] = result.config["ranker"]["ndcg_at_10"]
    return metrics
