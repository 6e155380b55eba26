"""A folder of plain files as a logged MLflow model and a version of a registered one.

Knows MLflow's model format; knows nothing of stages or of what the files hold. A version comes to be in one call, the
last one: whoever dies before it leaves a logged model that no version names, which `prorec artifacts gc` deletes.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prorec_core
from prorec.tasks.execution.sources import source_hash
from prorec.tasks.local import paths
from prorec.tasks.registry import models
from prorec.tasks.tracking import store
from prorec.tasks.tracking.mlflow_runs import client
from prorec.tasks.tracking.retries import retrying
from prorec_core.artifacts import MANIFEST, sha256_file, sha256_json, write_manifest

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


_NO_TAGS: Mapping[str, str] = {}
_NOTHING: Mapping[str, Any] = {}


def publish(
    name: str,
    run_id: str,
    bundle: Path,
    example: list[str],
    *,
    made: Mapping[str, Any] = _NOTHING,
    tags: Mapping[str, str] = _NO_TAGS,
    note: str | None = None,
) -> Mapping[str, str]:
    """Log a bundle as a model of a run and register it as the newest version of a registered model.

    The model is made of plain files: the source of `prorec_core`, tensors, tables and a manifest of them all. Where
    a version has the very same content (a stage made anew by force), that version is kept and none is added.

    Args:
        name: of the registered model.
        run_id: of the run.
        bundle: the folder.
        example: item ids of a short history.
        made: what the model was made of, for its manifest.
        tags: for the version, there from its first moment on.
        note: what describes the version.

    Returns:
        Tags for the run: where the model is, and the hash of its manifest.
    """
    import mlflow

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
    info = retrying(_log, run_id, bundle, example)
    model_id = str(info.model_id)
    with tempfile.TemporaryDirectory() as copy:
        stored = Path(retrying(mlflow.artifacts.download_artifacts, f"models:/{model_id}", dst_path=copy))
        # Downloading leaves a note of its own.
        (stored / "registered_model_meta").unlink(missing_ok=True)
        write_manifest(stored, "train_generator", {"model": name, **made}, {})
        retrying(client().log_model_artifact, model_id, str(stored / MANIFEST))
        found = {store.MODEL_MANIFEST_TAG: sha256_file(stored / MANIFEST), models.CONTENT_TAG: content}
    return {
        **found,
        store.MODEL_TAG: model_id,
        store.MODEL_URI_TAG: models.register(name, model_id, run_id, {**tags, **found}, note),
    }


def _content(bundle: Path) -> str:
    """Hash of what decides what the model recommends: its files, the software that reads them, and the libraries."""
    files = [(path.name, sha256_file(path)) for path in sorted(bundle.iterdir())]
    return sha256_json([files, source_hash(("prorec_core.serving",)), _requirements()])


def _requirements() -> list[str]:
    return [f"{each}=={importlib.metadata.version(each)}" for each in _NEEDED]


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
