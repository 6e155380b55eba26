"""A ranker goes from the report of one model to another that trains on everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorec.tasks.execution.stage import Work
from prorec.tasks.stages.align import align
from prorec.tasks.stages.embed_text import embed_text
from prorec.tasks.stages.evaluate import evaluate
from prorec.tasks.stages.given import ranker_digest, table_digest
from prorec.tasks.stages.preprocess import preprocess
from prorec.tasks.stages.quantize import quantize
from prorec.tasks.stages.report import report
from prorec.tasks.stages.train_collaborative import train_collaborative
from prorec.tasks.stages.train_generator import train_generator
from prorec_core.artifacts import write_manifest
from prorec_core.config import Experiment
from prorec_core.generation import ranker
from prorec_core.generation.trained import TrainedGenerator
from prorec_core.progress import silent

ROOT = Path(__file__).resolve().parents[3]
STAGES = (preprocess, embed_text, train_collaborative, align, quantize, train_generator, evaluate, report)
SMALL: dict[str, Any] = {"epochs": 1, "dim": 16, "layers": 1}


def _run(experiment: Experiment, folder: Path) -> dict[str, Path]:
    places: dict[str, Path] = {}
    for stage in STAGES:
        place = folder / stage.name
        place.mkdir(parents=True)
        state, values = folder / f"{stage.name}-state", stage.values(experiment)
        stage.body(Work(stage.part(experiment), values, dict(places), place, state, silent, None))  # type: ignore[arg-type]
        write_manifest(place, stage.name, values, {})
        places[stage.name] = place
    return places


def test_a_ranker_and_its_network_are_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    monkeypatch.setattr("prorec_core.text.stage.embed_text", lambda _, ids, *__: texts[: len(ids)])
    monkeypatch.setattr(ranker, "NETWORK_FROM", 1)
    sections = {
        "name": "shop",
        "data": {"demo": {"users": 120, "items": 50}},
        "collaborative": SMALL,
        "align": {"epochs": 1},
        "quantize": {"codes": 4},
        "generator": SMALL,
    }
    with monkeypatch.context() as patched:
        patched.setattr(ranker._Problem, "gains_of", lambda problem, _: np.ones(len(problem.targets_U)))
        patched.setattr("prorec_core.generation.choice.recommended_of", lambda _: "ranked")
        before = _run(Experiment.model_validate(sections), tmp_path / "before")
    file = before["report"] / "shop-ranker.json"
    assert file.read_bytes() == (before["train_generator"] / "ranker.json").read_bytes()
    assert "generator.ranker_file=shop-ranker.json" in (before["report"] / "report.html").read_text()

    everything = {"train_on_validation": True, "evaluate": {"fusion_weights": [2.0]}}
    given = {**sections, **everything, "generator": {**SMALL, "ranker_file": str(file)}}
    after = _run(Experiment.model_validate(given), tmp_path / "after")
    then, now = (TrainedGenerator.load(each["train_generator"]) for each in (before, after))
    assert then.ranker is not None and now.ranker is not None
    assert then.ranker.network is not None and now.ranker.network is not None
    assert now.recommended == "ranked" and now.config["ranker"]["weights"] == then.config["ranker"]["weights"]
    assert now.ranker.network.of_all() == then.ranker.network.of_all()
    assert str(tmp_path) not in (after["train_generator"] / "config.json").read_text()
    metrics = json.loads((after["evaluate"] / "metrics.json").read_text())
    assert metrics["recommended"] == "ranked" and metrics["test"]["ranked"]
    assert "The ranker and its network: as given." in (after["report"] / "report.html").read_text()
    assert (after["report"] / "shop-ranker.json").read_bytes() == file.read_bytes(), "so it can be carried on again"


def test_the_content_of_a_file_decides_what_is_cached(tmp_path: Path) -> None:
    def experiment(name: str) -> Experiment:
        given = {"ranker_file": str(tmp_path / name)}
        return Experiment.model_validate(
            {"train_on_validation": True, "evaluate": {"fusion_weights": [2.0]}, "generator": given}
        )

    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(text)
    first, same, other, none = map(experiment, ("a", "b", "c", "nothing"))
    assert train_generator.values(first) == train_generator.values(other)
    assert train_generator.found_outside(first) == train_generator.found_outside(same)
    assert len({train_generator.found_outside(each) for each in (first, other, none, Experiment())}) == 4
    assert ranker_digest(none) == "nowhere" and ranker_digest(Experiment()) == table_digest(Experiment()) == ""


def test_a_key_is_known_without_what_trains() -> None:
    script = (
        "import sys; from prorec_core.config import Experiment; from prorec.tasks.stages.given import ranker_digest\n"
        "ranker_digest(Experiment()); print({'torch', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"
