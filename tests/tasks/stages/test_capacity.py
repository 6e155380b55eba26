"""Codes that cannot be enough are refused once the data are read, not after training."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from prorec.tasks.stages.capacity import expect_capacity
from prorec.tasks.tracking import store
from prorec_core.artifacts import ArtifactRef
from prorec_core.config import Experiment
from prorec_core.errors import UserError

REF = ArtifactRef(stage="preprocess", digest="d", run_id="r", uri="/u")


def _experiment(collisions: str, codes: int) -> Experiment:
    return Experiment.model_validate({"quantize": {"collisions": collisions, "codes": codes, "levels": 2}})


def test_more_items_than_tuples_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "fetch", lambda ref: tmp_path)
    pl.DataFrame({"item_id": [str(item) for item in range(9)]}).write_parquet(tmp_path / "items.parquet")
    expect_capacity(_experiment("reassign", 3), REF)
    pl.DataFrame({"item_id": ["new"]}).write_parquet(tmp_path / "new_items.parquet")
    with pytest.raises(UserError, match=r"10 items cannot each have their own of 3\^2 tuples of codes"):
        expect_capacity(_experiment("reassign", 3), REF)
    expect_capacity(_experiment("reassign", 4), REF)
    expect_capacity(_experiment("suffix", 3), REF)
