"""What a part's trials share, what their figures say, and that one is measured whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import worth
from benchmarks.worth import Trial, make_shared, measure, rows_of, show, tenth_of_users, trials_of
from benchmarks.worth_plots import plot
from prorec.flows.configuration.experiments import changed
from prorec_core.artifacts import write_json
from prorec_core.config import Experiment
from tests.tiny import tiny

SMALL = Experiment.model_validate(tiny({"data.demo.users": 300, "data.demo.items": 80}))


def kept(trial: Trial, folder: Path, ranks: list[int], error: float | None = None) -> None:
    place = trial.place(folder)
    place.mkdir(parents=True)
    np.savez(place / "ranks.npz", all=np.array(ranks, np.int32))
    write_json(place / "figures.json", {} if error is None else {"relative_error": error})


def test_trials_share_all_but_the_part_itself() -> None:
    trials = trials_of("alignment", SMALL, range(2), lambda: changed(SMALL, {"data.demo.users": 100}, "test"))
    assert len({each.place(Path()) for each in trials}) == len(trials) == 2 * 4 * 5
    assert len({each.shared(Path()) for each in trials}) == 2 * 4, "one for each situation and seed"
    trials = trials_of("distillation", SMALL, range(2), lambda: SMALL)
    assert len({each.place(Path()) for each in trials}) == len(trials) == 2 * 9 * 2
    assert len({each.shared(Path()) for each in trials}) == 2, "one for each seed"
    assert all(not each.experiment.generator.node_scores for each in trials), "codes alone"


def test_a_difference_is_of_the_same_users_and_the_mean_over_seeds(tmp_path: Path) -> None:
    trials = [
        each
        for each in trials_of("distillation", SMALL, range(2), lambda: SMALL)
        if each.situation in {"2 × 32", "3 × 128"}
    ]
    for each in trials:
        with_it, seed = bool(each.weight), each.experiment.seed
        better = with_it and each.situation == "2 × 32"
        kept(each, tmp_path, [1 if better else 3, 0, 2, 11 if seed else 1], 0.25 if "32" in each.situation else 0.5)
    rows = rows_of(trials, tmp_path)
    assert [(row["situation"], bool(row["weight"])) for row in rows] == [
        ("2 × 32", False),
        ("2 × 32", True),
        ("3 × 128", False),
        ("3 × 128", True),
    ]
    assert rows[0]["recall_at_10"] == pytest.approx((0.75 + 0.5) / 2) and "ndcg_at_10_difference" not in rows[0]
    low, middle, high = rows[1]["ndcg_at_10_difference"]
    assert low == 0 and middle == pytest.approx(0.5 / 4) and high > middle, "one of four users gains a half"
    assert rows[1]["recall_at_10_difference"] == [0, 0, 0] and rows[3]["ndcg_at_10_difference"] == [0, 0, 0]
    assert (rows[1]["levels"], rows[1]["codes"], rows[1]["relative_error"], rows[1]["seeds"]) == (2, 32, 0.25, [0, 1])
    assert plot("distillation", rows).startswith(b"\x89PNG")
    show(rows, "", Console(quiet=True))


def test_a_seed_that_is_not_there_yet_is_left_out_of_a_difference(tmp_path: Path) -> None:
    trials = [
        each
        for each in trials_of("alignment", SMALL, range(2), lambda: SMALL)
        if each.situation == "as it is" and each.weight in {0.0, 1.0} and not (each.weight and each.experiment.seed)
    ]
    for each in trials:
        kept(each, tmp_path, [1 if each.weight else 2, 0] if not each.experiment.seed else [0, 0])
    rows = rows_of(trials, tmp_path)
    assert rows[1]["seeds"] == [0] and rows[1]["ndcg_at_10_difference"][1] > 0
    assert plot("alignment", rows).startswith(b"\x89PNG")


def test_a_trial_is_trained_and_measured_and_kept(tmp_path: Path) -> None:
    fewer = tenth_of_users(SMALL, tmp_path)
    trials = trials_of("alignment", SMALL, [0], lambda: fewer)
    for name, groups in {"20% new": {"all", "new"}, "a tenth of the users": {"all", "rare"}}.items():
        pair = [each for each in trials if each.situation == name and each.weight in {0.0, worth.ALPHAS[0]}]
        make_shared(pair[0], tmp_path)
        for each in pair:
            measure(each, tmp_path)
        rows = rows_of(pair, tmp_path)
        assert {row["group"] for row in rows} == groups
        assert not list(tmp_path.glob("*.work")), "what was measured needs no models"
    (own,) = [each for each in trials_of("distillation", SMALL, [0], lambda: SMALL) if each.place(tmp_path)][:1]
    make_shared(own, tmp_path)
    measure(own, tmp_path)
    (row,) = rows_of([own], tmp_path)
    assert 0 < row["relative_error"] < 1 and row["targets"] > 0
