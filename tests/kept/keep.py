"""Keep what this version of the software writes, so that later ones are tested on it.

Run in a checkout of the version, after `prorec run tests/kept/experiment.yaml` with the same PROREC_ARTIFACTS:

    python tests/kept/keep.py tests/kept/VERSION

Knows MLflow's store and the project's files; asks no more of `prorec_core` than every version has.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel

from prorec_core.artifacts import MANIFEST, read_json, write_json, write_manifest
from prorec_core.config import Experiment
from prorec_core.generation.recommender import Recommender

_ITEMS = 10


def fields(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """The dotted names of all fields, of sections too."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def keep(folder: Path) -> None:
    """Write the newest registered version, what was measured of it, and what it recommends."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{os.environ['PROREC_ARTIFACTS']}/mlflow.db")
    version = max(client.search_model_versions("name = 'prorec-kept'"), key=lambda each: int(each.version))
    model = Path(client.get_logged_model(str(version.source).removeprefix("models:/")).artifact_location)
    run = client.get_run(version.tags["prorec.run_id"])
    for stage, names in {"preprocess": "*.*", "evaluate": "[mr]*s.*"}.items():
        made = client.get_run(version.tags[f"prorec.{stage}.run_id"])
        source = _files(made.data.tags["prorec.uri"], folder / stage, names)
        write_manifest(folder / stage, stage, read_json(source / MANIFEST)["config"], {})
    shutil.copyfile(Path(run.info.artifact_uri) / "experiment.json", folder / "experiment.json")
    _files(str(model / "artifacts" / "bundle"), folder / "model" / "artifacts" / "bundle", "*.*")
    shutil.copyfile(model / "serving.py", folder / "model" / "serving.py")
    # Without the source that came with it, and without what is of one machine.
    described = yaml.safe_load((model / "MLmodel").read_text())
    flavor = described["flavors"]["python_function"]
    del flavor["code"], flavor["env"], described["artifact_path"]
    flavor["model_code_path"], flavor["artifacts"]["bundle"]["uri"] = "serving.py", "artifacts/bundle"
    (folder / "model" / "MLmodel").write_text(yaml.safe_dump(described))
    write_manifest(folder / "model", "train_generator", {"model": "prorec-kept"}, {})
    write_json(folder / "fields.json", sorted(fields(Experiment)))
    recommender = Recommender.load(folder / "model" / "artifacts" / "bundle")
    ids = recommender.item_ids
    histories = [ids[:1], ids[3:6], ids[5:30:3], [ids[-1], ids[0]], []]
    found = recommender.recommend(histories, _ITEMS)
    told = [
        {"history": history, "items": [each.item_id for each in best], "scores": [each.score for each in best]}
        for history, best in zip(histories, found, strict=True)
    ]
    (folder / "recommendations.json").write_text(json.dumps(told, indent=1) + "\n")


def _files(source: str, target: Path, names: str) -> Path:
    target.mkdir(parents=True)
    for path in Path(source).glob(names):
        if path.name != MANIFEST:
            shutil.copyfile(path, target / path.name)
    return Path(source)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
