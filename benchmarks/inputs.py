"""What the benchmarks run on: the real data through the real stages, trained briefly.

Time depends on shapes and on how codes are shared among items, not on how good the models are, so an epoch or
two will do; for the same reason words hashed to 384 dimensions stand in for the text encoder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.random_projection import GaussianRandomProjection

from prorec_core.alignment.stage import align
from prorec_core.alignment.trained import AlignedModel
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import read_embeddings, write_embeddings
from prorec_core.data.stage import preprocess
from prorec_core.generation.stage import GeneratorInputs, train_generator
from prorec_core.progress import Report
from prorec_core.quantization.quantized import Quantized
from prorec_core.quantization.stage import quantize
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.trained import CollaborativeModel, Floats
from prorec_core.training.runtime import make_runtime

TEXT_DIMENSIONS = 384
BRIEF_USERS = 2000


def experiment_for(config: Path, data: Path) -> Experiment:
    """The experiment in a YAML file, on the data in a folder, on the CPU."""
    found = Experiment.model_validate(yaml.safe_load(config.read_text(encoding="utf-8")))
    return found.model_copy(update={"device": "cpu", "data": found.data.model_copy(update={"path": str(data)})})


def prepare(experiment: Experiment, folder: Path, report: Report) -> None:
    """Leave every stage's artifact below `folder`, each in a folder with the stage's name."""
    runtime = make_runtime(experiment.device, report)
    data = preprocess(experiment.data, experiment.seed)
    data.save(_made(folder / "preprocess"))
    text = _hashed_words(data.items["text"].to_list())
    write_embeddings(_made(folder / "embed_text") / "embeddings.parquet", text)
    collaborative = train_collaborative(
        experiment.collaborative.model_copy(update={"epochs": 1}), data.sequences, experiment.seed, runtime
    )
    collaborative.save(_made(folder / "train_collaborative"))
    aligned = align(
        experiment.align.model_copy(update={"epochs": 2}),
        data.sequences,
        collaborative,
        text,
        experiment.seed,
        runtime,
    )
    aligned.save(_made(folder / "align"))
    item_ids = data.items["item_id"].to_list()
    quantize(experiment.quantize, aligned.integrated, item_ids, experiment.seed).save(_made(folder / "quantize"))
    brief = experiment.model_copy(update={"generator": experiment.generator.model_copy(update={"epochs": 1})})
    train_generator(generator_inputs(brief, folder, users=BRIEF_USERS), experiment.seed, runtime).save(
        _made(folder / "train_generator")
    )


def sequential_inputs(folder: Path) -> tuple[Dataset, CollaborativeModel, Floats]:
    """What stage `align` reads: data, the collaborative model and text embeddings."""
    return (
        Dataset.load(folder / "preprocess"),
        CollaborativeModel.load(folder / "train_collaborative"),
        read_embeddings(folder / "embed_text" / "embeddings.parquet", "embed_text"),
    )


def generator_inputs(experiment: Experiment, folder: Path, users: int | None = None) -> GeneratorInputs:
    """What stage `train_generator` reads, of all users or of the first few."""
    quantized, aligned = Quantized.load(folder / "quantize"), AlignedModel.load(folder / "align")
    sequences = Dataset.load(folder / "preprocess").sequences
    centroids = quantized.level_centroids
    return GeneratorInputs(
        config=experiment.generator,
        fusion_weights=experiment.evaluate.fusion_weights,
        beams=experiment.evaluate.beams,
        mask_history=experiment.evaluate.mask_history,
        sequences=sequences if users is None else sequences.select(np.arange(min(users, sequences.n_users))),
        codes=quantized.table.codes,
        codebooks=[*centroids, *[None] * (quantized.table.depth - len(centroids))],
        embeddings=aligned.integrated,
        integrated=True,
        aligned=aligned,
        texts=read_embeddings(folder / "embed_text" / "embeddings.parquet", "embed_text"),
    )


def _hashed_words(texts: list[str]) -> Floats:
    words = HashingVectorizer(n_features=2**15).transform(texts)
    projected = GaussianRandomProjection(TEXT_DIMENSIONS, random_state=0).fit_transform(words)
    return np.ascontiguousarray(projected, dtype=np.float32)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
