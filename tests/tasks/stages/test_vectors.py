"""Pictures beside texts through all stages, a tenth of the items without one and a fifth of them new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prorec.tasks.execution.stage import Work
from prorec.tasks.stages.align import align
from prorec.tasks.stages.embed_text import embed_text
from prorec.tasks.stages.evaluate import evaluate
from prorec.tasks.stages.preprocess import preprocess
from prorec.tasks.stages.quantize import quantize
from prorec.tasks.stages.report import report
from prorec.tasks.stages.train_collaborative import train_collaborative
from prorec.tasks.stages.train_generator import train_generator
from prorec_core.artifacts import write_manifest
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import read_embeddings
from prorec_core.progress import silent
from prorec_core.stages.bundle import fill_bundle
from prorec_core.text.semantic import SemanticSource

STAGES = (preprocess, embed_text, train_collaborative, align, quantize, train_generator, evaluate, report)
SMALL: dict[str, Any] = {"epochs": 1, "dim": 16, "layers": 1}


def test_pictures_reach_the_model_and_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)

    def texts(_: Any, ids: list[str], *__: Any) -> Any:
        return random.normal(size=(len(ids), 12)).astype(np.float32)

    monkeypatch.setattr("prorec_core.text.stage.embed_text", texts)
    file = tmp_path / "pictures.parquet"
    experiment = Experiment.model_validate(
        {
            "data": {"demo": {"users": 120, "items": 50}, "new_items": 0.2},
            "text": {
                "encoder": "none",
                "vectors": [{"name": "picture", "path": str(file), "missing": "mean"}],
            },
            "collaborative": SMALL,
            "align": {"epochs": 1},
            "quantize": {"codes": 4, "embedding": "integrated"},
            "generator": SMALL,
        }
    )
    places: dict[str, Path] = {}
    for stage in STAGES:
        if stage is embed_text:
            items = Dataset.load(places["preprocess"]).all_items()["item_id"].to_list()
            having = [item for place, item in enumerate(items) if place % 10]
            vectors = pl.Series("embedding", random.normal(size=(len(having), 30)).tolist())
            pl.DataFrame({"item_id": having, "embedding": vectors}).write_parquet(file)
        folder = tmp_path / stage.name
        folder.mkdir()
        part = stage.part(experiment)
        stage.body(Work(part, {}, dict(places), folder, tmp_path / f"{stage.name}-state", silent, None))  # type: ignore[arg-type]
        write_manifest(folder, stage.name, stage.values(experiment), {})
        places[stage.name] = folder

    known, new = (
        read_embeddings(places["embed_text"] / name, "") for name in ("embeddings.parquet", "new_embeddings.parquet")
    )
    assert known.shape[1] == new.shape[1] == 12 + 30
    assert (known[0, 12:] == 0).all() and known[1, 12:].any(), "the first item has no picture"
    rows = json.loads((places["align"] / "domination.json").read_text())["integrated"]["by_source"]
    assert set(rows) == {"text", "picture"} and all(0 <= row["share"] <= 1 for row in rows.values())
    page = (places["report"] / "report.html").read_text()
    assert "What items are described by" in page and f"of {len(known)}" in page and items[0] in page
    assert json.loads((places["evaluate"] / "metrics.json").read_text())["new_items"]["interactions"] > 0

    fill_bundle(tmp_path / "bundle", Work(experiment, {}, places, places["train_generator"], tmp_path, silent, None))  # type: ignore[arg-type]
    kept = json.loads((tmp_path / "bundle" / "encoder.json").read_text())
    sources = SemanticSource.all_of(kept, 42)
    assert [(each.name, each.width) for each in sources] == [("text", 12), ("picture", 30)]
    assert str(tmp_path) not in json.dumps(kept), "no path of the machine is in a model"
    # What the model keeps places an item's picture where the stage has put it.
    own = pl.read_parquet(file).filter(pl.col("item_id") == items[1])["embedding"].to_list()
    placed = sources[1].placed(np.array(own, np.float32), np.ones(1, bool))
    assert np.allclose(placed[0], known[1, 12:])
