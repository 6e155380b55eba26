"""Costs by size: the shop is what it says, predictions follow what was measured, and what was measured is kept."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import scale, scale_stage
from benchmarks.budget import Point, does_not_fit, memory_of, seconds_of
from benchmarks.experiments import changed
from benchmarks.shop import Size, settings_of, write_shop
from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.errors import UserError

SMALL, LARGE = Size(100, 60), Size(1000, 600)


@given(power=st.floats(1, 2), cost=st.floats(0.01, 1e4), sizes=st.tuples(*[st.floats(1.1, 50)] * 2))
def test_what_grows_with_a_power_is_predicted(power: float, cost: float, sizes: tuple[float, float]) -> None:
    second, third = sizes[0], sizes[0] * sizes[1]
    before = [Point(1, cost), Point(second, cost * second**power)]
    assert seconds_of(before, third) == pytest.approx(cost * third**power, rel=1e-6)


def test_less_than_in_proportion_is_not_hoped_for_and_memory_has_a_fixed_part() -> None:
    assert seconds_of([], 5) is None and memory_of([Point(1, 1)], 5) is None
    assert seconds_of([Point(10, 3)], 20) == 6
    assert seconds_of([Point(10, 3), Point(20, 3)], 40) == 6
    assert memory_of([Point(10, 3), Point(20, 4)], 40) == 6
    assert memory_of([Point(10, 3), Point(20, 2)], 40) == 2
    assert does_not_fit([Point(10, 3)], 20, 7) == "" and "about 6 s, and 5 s" in does_not_fit([Point(10, 3)], 20, 5)


def test_every_item_occurs_and_nobody_has_one_twice(tmp_path: Path) -> None:
    size = Size(2000, 900)
    write_shop(tmp_path, size, 8)
    found = pl.read_parquet(tmp_path / "interactions.parquet")
    assert found["item_id"].n_unique() == size.items and found["user_id"].n_unique() == size.users
    assert found.select("user_id", "item_id").is_duplicated().sum() == 0
    assert size.per_user / 2 < found.height / size.users < size.per_user + 1
    counts = found["item_id"].value_counts()["count"]
    assert counts.max() > 20 * counts.median(), "some are popular"


class Pretended(scale.Campaign):
    """Stages that take as many seconds as there are items, in a time that stands still, and no work."""

    left = 1e6
    seen: list[tuple[str, str]]

    def _measured(self, name: str, folder: Path) -> tuple[dict[str, float], str]:
        self.seen.append((name, folder.name))
        if self.left < 0:
            raise KeyboardInterrupt
        return {"seconds": float(folder.name.split("-")[0]), "processor_seconds": 1.0, "peak_bytes": 2**30}, ""


def pretended(output: Path, seconds: float, *settings: str) -> Pretended:
    experiment = scale.experiments.load(scale.PRESET, ["collaborative.dim=16", *settings])
    found = Pretended([SMALL, LARGE], experiment, output, seconds)
    found.seen = []
    return found


def test_what_would_not_fit_is_told_and_measured_by_a_later_call(tmp_path: Path) -> None:
    first = pretended(tmp_path, 500)
    first.run(Console(quiet=True))
    assert {size for _, size in first.seen} == {"100-60"} and len(first.seen) == len(scale_stage.NAMES)
    told = json.loads((tmp_path / "scale.json").read_text())["rows"]
    why = {row["stage"]: row["why_not"] for row in told if row["items"] == LARGE.items}
    assert why["preprocess"].startswith("would not fit the budget: about 1,000 s")
    assert why["align"] == "without preprocess"
    page = (tmp_path / "scale.md").read_text()
    assert "`preprocess`, 1,000 items: not run: would not fit the budget" in page
    assert "| `align` | 100.0 · 1.0 · 1.00 | – |" in page

    second = pretended(tmp_path, 1e6)
    second.run(Console(quiet=True))
    assert {size for _, size in second.seen} == {"1000-600"} and len(second.seen) == len(scale_stage.NAMES)
    assert not list((tmp_path / "work").iterdir()), "files of a size that is done are removed"
    with pytest.raises(UserError, match="other settings"):
        pretended(tmp_path, 1e6, "collaborative.layers=1")


def test_what_was_measured_before_an_interruption_is_kept(tmp_path: Path) -> None:
    class Interrupted(Pretended):
        def _measured(self, name: str, folder: Path) -> tuple[dict[str, float], str]:
            if name == "align":
                raise KeyboardInterrupt
            return super()._measured(name, folder)

    stopped = pretended(tmp_path, 1e6)
    stopped.__class__ = Interrupted
    with pytest.raises(KeyboardInterrupt):
        stopped.run(Console(quiet=True))
    again = pretended(tmp_path, 1e6)
    again.run(Console(quiet=True))
    assert ("preprocess", "100-60") not in again.seen and again.seen[0] == ("align", "100-60")


def test_every_stage_runs_on_what_those_before_left(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    write_shop(shop, SMALL, 8)
    small = {"dim": 16, "layers": 1, "epochs": 1}
    sections = {"collaborative": small, "align": {"epochs": 1}, "generator": small, "quantize": {"codes": 8}}
    experiment = changed(Experiment(device="cpu"), {**settings_of(shop), **sections})
    (tmp_path / "experiment.json").write_text(experiment.model_dump_json())
    for name in scale_stage.NAMES:
        if name != "report":
            scale_stage.run(name, tmp_path)
    kept = Dataset.load(tmp_path / "preprocess")
    assert (kept.items.height, kept.users.height) == (SMALL.items, SMALL.users), "no filter takes anything"
    rows = pl.read_parquet(tmp_path / scale_stage.RECOMMEND_ALL / "recommendations.parquet")
    assert rows["user_id"].n_unique() == SMALL.users
