"""Own data whose experiment says next to nothing: run, told in one line, kept as numbers, and pinned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from mlflow import MlflowClient

from benchmarks.continuing import write_log
from prorec.flows.configuration.experiments import load
from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.tracking.mlflow_runs import flatten
from prorec_core import load_data, versions
from prorec_core.by_data import AUTO
from prorec_core.config import BY_DATA, Experiment
from prorec_core.fitting import open_fields

ROOT = Path(__file__).resolve().parents[2]
FIELDS = [f"{section}.{field}" for section, fields in BY_DATA.items() for field in fields]


def prorec(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PROREC_ARTIFACTS": str(folder / "artifacts")}
    command = [sys.executable, "-m", "prorec", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a log of 120 users and shop.yaml, which pins no more than what makes the test short."""
    folder = tmp_path_factory.mktemp("shop")
    shop = load_data(Experiment.model_validate({"data": {"demo": {"users": 120, "items": 60}}}))
    write_log(shop, np.ones(len(shop.timestamps), bool), folder / "data")
    once = {"epochs": 1}
    values = {
        "data": {"source": "tables", "path": str(folder / "data"), "text_columns": ["text"], "title_column": "title"},
        **{"collaborative": once, "align": once, "generator": {**once, "validation_users": 50}},
        "evaluate": {"bootstrap_samples": 100},
    }
    (folder / "shop.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_show_says_auto_and_with_the_data_what_it_comes_to(folder: Path) -> None:
    shown, found = (
        prorec("config", "show", str(folder / "shop.yaml"), *more, folder=folder) for more in ([], ["--data"])
    )
    assert yaml.safe_load(shown.stdout)["quantize"]["codes"] == AUTO
    assert found.stdout.startswith("# by rule ") and " from 120 users, 60 items " in found.stdout.splitlines()[0]
    (folder / "pinned.yaml").write_text(found.stdout)
    pinned = load(str(folder / "pinned.yaml"))
    assert open_fields(pinned) == [] and pinned.align.epochs == 1 and pinned.name == "shop"
    (folder / "lacking").mkdir()
    for table in (folder / "data").iterdir():
        rows = pl.read_parquet(table)
        (rows.head(40) if table.stem == "items" else rows).write_parquet(folder / "lacking" / table.name)
    words = ["--set", f"data.path={folder / 'lacking'}", "--data"]
    lacking = prorec("config", "show", str(folder / "shop.yaml"), *words, folder=folder).stdout
    assert lacking.splitlines()[1].startswith("# ") and "lacks, as" in lacking.splitlines()[1]
    assert open_fields(Experiment.model_validate(yaml.safe_load(lacking))) == []
    preset = prorec("config", "show", "demo", "--data", folder=folder)
    assert preset.stdout.startswith("# It leaves nothing to its data.")


@pytest.mark.pipeline
def test_a_run_keeps_numbers_and_says_which(
    folder: Path, prefect_api: str, begin_store: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_store(folder / "artifacts")
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    done = prorec("run", str(folder / "shop.yaml"), "--json", str(folder / "out.json"), folder=folder)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("settings by rule")]
    assert "codes 16" in line and "dim 64" in line and "epochs" not in line and "config show" in line
    found = json.loads((folder / "out.json").read_text())

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'artifacts' / 'mlflow.db'}")
    run = client.get_run(found["mlflow"]["run_id"])
    record = versions.parsed((Path(run.info.artifact_uri) / "experiment.json").read_text(), "here")
    known = versions.whole(Experiment, versions.up_to_date(record, "here"), "here")
    assert open_fields(known) == [] and known.quantize.codes == 16
    assert run.data.params["quantize.codes"] == "16" and run.data.params["generator.dim"] == "64"
    for stage in found["stages"]:
        config = json.loads((Path(stage["uri"]) / "manifest.json").read_text())["config"]
        assert not {field for field, value in flatten(config) if value == AUTO} & set(FIELDS), stage["name"]
    assert {stage["name"] for stage in found["stages"]} == set(STAGES)
    page = (Path(found["stages"][-1]["uri"]) / "report.html").read_text()
    assert "Settings that may follow the data" in page and "For 120 users, 60 items" in page
