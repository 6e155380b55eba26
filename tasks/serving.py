"""A trained generator as a registered MLflow model. Knows MLflow's model format and which files serving needs."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import prorec_core
from prorec_core.artifacts import MANIFEST, sha256_file, write_manifest
from tasks import places, store
from tasks.inputs import quantized_embedding
from tasks.patience import patiently
from tasks.stage import Work
from tasks.tracking import client, experiment_name

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

    The model is made of plain files: the source of `prorec_core`, tensors, tables and a manifest of them all.

    Returns:
        Tags for the stage's run: where the model is, and the hash of its manifest.
    """
    import mlflow

    name = experiment_name(work.experiment.name)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        example = _fill(bundle, work)
        mlflow.set_tracking_uri(places.tracking_uri())
        mlflow.set_registry_uri(places.tracking_uri())
        info = patiently(_log, work.run.id, bundle, example)
        model_id = str(info.model_id)
        copy = Path(scratch) / "model"
        copy.mkdir()
        stored = Path(patiently(mlflow.artifacts.download_artifacts, f"models:/{model_id}", dst_path=str(copy)))
        # Downloading leaves a note of its own.
        (stored / "registered_model_meta").unlink(missing_ok=True)
        write_manifest(stored, "train_generator", {"model": name}, {})
        patiently(client().log_model_artifact, model_id, str(stored / MANIFEST))
        manifest_sha256 = sha256_file(stored / MANIFEST)
    return {
        store.MODEL_TAG: model_id,
        store.MODEL_MANIFEST_TAG: manifest_sha256,
        store.MODEL_URI_TAG: f"models:/{name}/{_new_version(name, model_id, work.run.id)}",
    }


def _new_version(name: str, model_id: str, run_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        patiently(client().create_registered_model, name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model_id}"
    version = patiently(client().create_model_version, name, source, run_id=run_id, model_id=model_id)
    return str(version.version)


def _fill(bundle: Path, work: Work) -> list[str]:
    """Gather what serving needs; returns the item ids of a short history, as an example."""
    from prorec_core.data.dataset import Dataset
    from prorec_core.data.embeddings import write_embeddings

    bundle.mkdir()
    for source in (
        work.folder / "model.safetensors",
        work.folder / "config.json",
        work.folder / "training.json",
        work.inputs["quantize"] / "codes.parquet",
        work.inputs["preprocess"] / "items.parquet",
    ):
        shutil.copyfile(source, bundle / source.name)
    write_embeddings(bundle / "embeddings.parquet", quantized_embedding(work), "align")
    return [str(item) for item in Dataset.load(work.inputs["preprocess"]).items["item_id"].head(3)]


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
            pip_requirements=[f"{each}=={importlib.metadata.version(each)}" for each in _NEEDED],
        )
    # Leaving the context closed the run, and there is more to come.
    client().update_run(run_id, "RUNNING")
    return info
