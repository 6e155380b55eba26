"""What would end a later stage is refused once the data are read, not after training."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.stages.ahead import expect_possible


def _experiment(collisions: str, codes: int) -> Experiment:
    return Experiment.model_validate({"quantize": {"collisions": collisions, "codes": codes, "levels": 2}})


def test_more_items_than_tuples_are_refused_at_once(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": [str(item) for item in range(9)]}).write_parquet(tmp_path / "items.parquet")
    expect_possible(_experiment("reassign", 3), tmp_path)
    pl.DataFrame({"item_id": ["new"]}).write_parquet(tmp_path / "new_items.parquet")
    with pytest.raises(UserError, match=r"10 items cannot each have their own of 3\^2 tuples of codes"):
        expect_possible(_experiment("reassign", 3), tmp_path)
    expect_possible(_experiment("reassign", 4), tmp_path)
    expect_possible(_experiment("suffix", 3), tmp_path)


def test_one_item_is_refused_at_once(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["alone"]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(UserError, match=r"only one item is left.*data.min_item_interactions"):
        expect_possible(Experiment(), tmp_path)


def test_files_that_do_not_hold_what_they_should_are_refused_at_once(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["a", "b"]}).write_parquet(tmp_path / "items.parquet")
    table = tmp_path / "codes.csv"
    table.write_text("item_id,code_0,code_1\na,0,0\n")
    own = _experiment("suffix", 3).model_dump()
    own["quantize"]["table"] = str(table)
    with pytest.raises(UserError, match="1 of 2 items have no codes: 'b'"):
        expect_possible(Experiment.model_validate(own), tmp_path)
    own["start_from"] = "models:/x/1"
    expect_possible(Experiment.model_validate(own), tmp_path)
    ranked = {
        "train_on_validation": True,
        "evaluate": {"fusion_weights": [2.0]},
        "generator": {"ranker_file": str(tmp_path / "ranker.json")},
    }
    with pytest.raises(UserError, match=r"generator\.ranker_file=.*ranker\.json: there is no such file"):
        expect_possible(Experiment.model_validate(ranked), tmp_path)
