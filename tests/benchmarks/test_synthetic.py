"""The model that has learnt nothing is one that can be served."""

from __future__ import annotations

from pathlib import Path

from benchmarks.synthetic import register
from prorec.tasks.registry import recommenders


def test_a_synthetic_model_recommends_known_items(artifacts_folder: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "stages"
    scratch.mkdir()
    recommender = recommenders.load(recommenders.find(register(1000, scratch)))
    (found,) = recommender.recommend([["item-0000003", "item-0000500"]], 10)
    assert len({each.item_id for each in found} - {"item-0000003", "item-0000500"}) == 10
