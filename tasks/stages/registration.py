"""A trained generator as a registered MLflow model. Knows MLflow's model format and which files serving needs."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import prorec_core
from prorec.tasks.execution.sources import source_hash
from prorec.tasks.execution.stage import Work
from prorec.tasks.local import paths
from prorec.tasks.registry import models
from prorec.tasks.tracking import store
from prorec.tasks.tracking.mlflow_runs import client, experiment_name
from prorec.tasks.tracking.retries import retrying
from prorec_core.artifacts import MANIFEST, read_json, sha256_file, sha256_json, write_json, write_manifest
from prorec_core.stages.inputs import new_quantized_embedding, quantized_embedding

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

_NEEDED = (
    "torch",
    "numpy",
    "polars",
    "pyarrow",
    "pandas",
    "pydantic",
    "safetensors",
    "scipy",
    "scikit-learn",
    "mlflow",
)
_CODE = Path(prorec_core.__file__).parent


def register(work: Work) -> Mapping[str, str]:
    """Log the generator as a model of the stage's run and register it as the experiment's newest version.

    The model is made of plain files: the source of `prorec_core`, tensors, tables and a manifest of them all. Where
    a version has the very same content (a stage made anew by force), that version is kept and none is added.

    Returns:
        Tags for the stage's run: where the model is, and the hash of its manifest.
    """
    import mlflow

    name = experiment_name(work.experiment.name)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        example = fill_bundle(bundle, work)
        content = _content(bundle)
        if same := models.of_content(name, content):
            return {
                store.MODEL_TAG: same.model_id,
                store.MODEL_MANIFEST_TAG: same.tags[store.MODEL_MANIFEST_TAG],
                store.MODEL_URI_TAG: same.uri,
                models.CONTENT_TAG: content,
            }
        mlflow.set_tracking_uri(paths.tracking_uri())
        mlflow.set_registry_uri(paths.tracking_uri())
        info = retrying(_log, work.run.id, bundle, example)
        model_id = str(info.model_id)
        copy = Path(scratch) / "model"
        copy.mkdir()
        stored = Path(retrying(mlflow.artifacts.download_artifacts, f"models:/{model_id}", dst_path=str(copy)))
        # Downloading leaves a note of its own.
        (stored / "registered_model_meta").unlink(missing_ok=True)
        write_manifest(stored, "train_generator", {"model": name}, {})
        retrying(client().log_model_artifact, model_id, str(stored / MANIFEST))
        found = {store.MODEL_MANIFEST_TAG: sha256_file(stored / MANIFEST), models.CONTENT_TAG: content}
    return {
        **found,
        store.MODEL_TAG: model_id,
        store.MODEL_URI_TAG: models.register(name, model_id, work.run.id, found),
    }


def _content(bundle: Path) -> str:
    """Hash of what decides what the model recommends: its files, the software that reads them, and the libraries."""
    files = [(path.name, sha256_file(path)) for path in sorted(bundle.iterdir())]
    return sha256_json([files, source_hash(("prorec_core.serving",)), _requirements()])


def _requirements() -> list[str]:
    return [f"{each}=={importlib.metadata.version(each)}" for each in _NEEDED]


def fill_bundle(bundle: Path, work: Work) -> list[str]:
    """Gather what serving needs; returns the item ids of a short history, as an example.

    New items that the experiment holds out stand in the tables after the others: what is served knows them too.
    """
    import numpy as np

    from prorec_core.data.dataset import Dataset
    from prorec_core.data.embeddings import write_embeddings
    from prorec_core.data.kept_attributes import FILE as ATTRIBUTES
    from prorec_core.quantization.quantized import Quantized

    dataset = Dataset.load(work.inputs["preprocess"])
    bundle.mkdir()
    for source in (
        work.folder / "model.safetensors",
        work.folder / "config.json",
        work.folder / "training.json",
        work.inputs["quantize"] / "codes.parquet",
        work.inputs["preprocess"] / "items.parquet",
        # What gives an item that is new to the model its embedding and its codes.
        work.inputs["align"] / "adapter.safetensors",
        work.inputs["quantize"] / "codebooks.safetensors",
        work.inputs["quantize"] / "quality.json",
    ):
        shutil.copyfile(source, bundle / source.name)
    shutil.copyfile(work.inputs["align"] / "config.json", bundle / "align.json")
    text = read_json(work.inputs["embed_text"] / MANIFEST)["config"]["text"]
    write_json(
        bundle / "encoder.json", {**read_json(work.inputs["embed_text"] / "encoder.json"), "model": text["model"]}
    )
    if (kept := work.inputs["preprocess"] / ATTRIBUTES).is_file():
        shutil.copyfile(kept, bundle / kept.name)
    embeddings = quantized_embedding(work)
    if dataset.new_items is not None:
        embeddings = np.concatenate([embeddings, new_quantized_embedding(work)])
        Quantized.load(work.inputs["quantize"]).all_items().save(bundle / "codes.parquet")
        dataset.save_all_items(bundle / "items.parquet")
    write_embeddings(bundle / "embeddings.parquet", embeddings)
    return [str(item) for item in dataset.items["item_id"].head(3)]


def _log(run_id: str, bundle: Path, example: list[str]) -> ModelInfo:
    import mlflow
    import pandas as pd  # type: ignore[import-untyped]
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    from prorec_core.serving import BUNDLE

    outputs = {"row": "long", "rank": "long", "item_id": "string", "title": "string", "score": "double"}
    anything = AnyType()  # type: ignore[no-untyped-call]
    signature = ModelSignature(
        inputs=Schema([ColSpec(anything, "history")]),
        outputs=Schema([ColSpec(DataType[kind], column) for column, kind in outputs.items()]),
        params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
    )
    with mlflow.start_run(run_id=run_id):
        info: ModelInfo = mlflow.pyfunc.log_model(
            name="generator",
            python_model=str(_CODE / "serving.py"),
            artifacts={BUNDLE: str(bundle)},
            code_paths=[str(_CODE)],
            signature=signature,
            input_example=(pd.DataFrame({"history": [example]}), {"k": 10}),
            pip_requirements=_requirements(),
        )
    # Leaving the context closed the run, and there is more to come.
    client().update_run(run_id, "RUNNING")
    return info
