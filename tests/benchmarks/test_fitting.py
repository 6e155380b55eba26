"""Which trials share what was trained, and how a budget ends and goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import fitting
from benchmarks.fitting import OverBudgetError, Trial, experiment_of, measure, show
from prorec_core.fitting import Size
from prorec_core.progress import Progress

BEAUTY = Size(22_363, 12_101, 198_502, 14)


def trial(name: str, base: str = "preset", **settings: object) -> Trial:
    values = {field.replace("__", "."): value for field, value in settings.items()}
    return Trial(name, experiment_of("amazon-beauty", "here", BEAUTY, base, values), Path("work"))


def test_trials_share_what_their_settings_share() -> None:
    preset, graph, wide = trial("preset"), trial("graph", align__graph=0), trial("wide", collaborative__dim=256)
    assert preset.place("train_collaborative") == graph.place("train_collaborative")
    assert len({each.place("train_collaborative") for each in (preset, wide)}) == 2
    assert len({each.place("align") for each in (preset, graph, wide)}) == 3
    codes = trial("codes", quantize__codes=64)
    assert codes.place("align") == preset.place("align") and codes.place("train_generator") != preset.place(
        "train_generator"
    )
    ruled, shops = trial("rule", "rule"), trial("demo", "demo")
    assert (ruled.experiment.align.graph, ruled.experiment.collaborative.dim) == (0.5, 128)
    assert (shops.experiment.align.graph, shops.experiment.collaborative.dim) == (0.0, 64)
    assert trial("open", "preset", quantize__codes="auto").experiment == preset.experiment


def test_a_training_ends_with_the_minutes_and_what_is_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, until = [], [2]

    def dense(each: Trial, stage: str, place: Path, report: object) -> tuple[fitting.Ranks, int]:
        for epoch in range(1 + len(trained), 5):
            trained.append(epoch)
            report(Progress(epoch, 4, "epoch", {}))  # type: ignore[operator]
        return np.array([1, 0, 2], np.int32), 4

    monkeypatch.setattr(fitting, "_dense", dense)
    mine = Trial("preset", trial("preset").experiment, tmp_path)
    with pytest.raises(OverBudgetError):
        measure(mine, "align", lambda: len(trained) >= until[0])
    until[0] = 9
    figures = measure(mine, "align", lambda: len(trained) >= until[0])
    assert trained == [1, 2, 3, 4] and figures["ndcg_at_10"] == pytest.approx((1 + 1 / np.log2(3)) / 3)
    assert measure(mine, "align", lambda: True) == figures, "what is there needs no time"
    np.save(tmp_path / "other.npy", np.array([1, 1, 2], np.int32))
    other = {**figures, "ranks": str(tmp_path / "other.npy")}
    found = {"amazon-beauty": {("preset", "align"): figures, ("rule", "align"): other}}
    rows = show(found, Console(quiet=True))
    assert rows[1]["difference"]["difference"] == pytest.approx(1 / 3, abs=1e-5) and "difference" not in rows[0]
