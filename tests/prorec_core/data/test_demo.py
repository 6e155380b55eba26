from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from prorec_core.config_data import DataConfig, DemoShop
from prorec_core.data import demo
from prorec_core.data.demo import make_demo_shop
from prorec_core.data.demo_words import CATEGORIES
from prorec_core.data.stage import preprocess

SMALL = DemoShop(users=400, items=160)


def test_same_configuration_same_shop() -> None:
    one, two = make_demo_shop(SMALL), make_demo_shop(SMALL)
    assert one.interactions.equals(two.interactions) and one.items.equals(two.items) and one.facts == two.facts
    assert not one.interactions.equals(make_demo_shop(SMALL.model_copy(update={"seed": 8})).interactions)


@pytest.mark.parametrize(("users", "items"), [(50, 40), (60, 2000), (3000, 1200)])
def test_every_size_makes_a_shop(users: int, items: int) -> None:
    shop = make_demo_shop(DemoShop(users=users, items=items))
    lengths = shop.interactions.group_by("user_id").len()["len"]
    assert shop.items["item_id"].n_unique() == items and lengths.len() == users
    assert lengths.min() >= 5 and lengths.max() <= 24  # type: ignore[operator]
    assert not shop.interactions.select("user_id", "item_id").is_duplicated().any()
    assert 0 < shop.facts["best_recall_at_10"] <= 1


def test_default_shop_survives_the_core_and_both_sides_matter() -> None:
    dataset = preprocess(DataConfig())
    assert dataset.sequences.n_users >= 2_950 and dataset.sequences.n_items >= 1_150
    assert 8 < dataset.profile["history_length"]["mean"] < 10
    known = dataset.profile["demo"]
    assert 0.3 < known["best_recall_at_10"] < 0.6
    for metric in ("recall_at_10", "ndcg_at_10"):
        assert known[f"best_{metric}"] > 1.5 * known[f"text_only_{metric}"]


def test_texts_show_the_category_and_nothing_of_the_style() -> None:
    world = demo._plant(1200, np.random.default_rng(0))
    items = demo._catalogue(world, [str(item) for item in range(1200)], np.random.default_rng(1))
    for category, shown in zip(world.category, items["categories"], strict=True):
        assert shown.to_list() == list(CATEGORIES[category][:2])
    other = demo._World(world.category, world.style[::-1], world.weight, world.follows, world.taste)
    assert demo._catalogue(other, items["item_id"].to_list(), np.random.default_rng(1)).equals(items)


def test_planted_chances_add_up() -> None:
    world = demo._plant(480, np.random.default_rng(3))
    chances = world.follows[0][world.category] * world.taste[1][world.style] * world.weight
    assert np.isclose(chances.sum(), 1) and (chances > 0).all()
    assert np.allclose(world.follows.sum(axis=1), 1) and np.allclose(world.taste.sum(axis=1), 1)


def test_walk_follows_the_planted_chances() -> None:
    rng = np.random.default_rng(5)
    world = demo._plant(160, rng)
    styles = np.zeros(60_000, dtype=np.int64)
    items = demo._walk(world, styles, np.full(len(styles), 2), rng)
    chosen = items[items[:, 0] == 0][:, 1]
    expected = world.follows[world.category[0]][world.category] * world.taste[0][world.style] * world.weight
    expected[0] = 0
    expected *= len(chosen) / expected.sum()
    likely = expected > 5
    difference = np.bincount(chosen, minlength=160)[likely] - expected[likely]
    assert (difference**2 / expected[likely]).sum() < likely.sum() + 6 * np.sqrt(2 * likely.sum())


def brute_force_belief(world: demo._World, history: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    belief = np.ones(demo.STYLES)
    for style in range(demo.STYLES):
        popularity = world.taste[style][world.style] * world.weight
        belief[style] *= popularity[history[0]]
        for step in range(1, len(history)):
            chances = world.follows[world.category[history[step - 1]]][world.category] * popularity
            chances[history[:step]] = 0
            belief[style] *= chances[history[step]] / chances.sum()
    return belief / belief.sum()


def test_style_is_inferred_by_bayes_rule() -> None:
    rng = np.random.default_rng(2)
    world = demo._plant(80, rng)
    lengths = np.array([3, 6, 9, 12])
    items = demo._walk(world, np.array([0, 1, 2, 3]), lengths, rng)
    belief = demo._style_given_history(world, items)
    for row, length in enumerate(lengths):
        assert np.allclose(belief[row], brute_force_belief(world, items[row, :length]))


def test_promised_recall_is_what_the_best_ranking_gets() -> None:
    """Over many users, the optimal ranking hits as often as its expected recall says."""
    rng = np.random.default_rng(11)
    world = demo._plant(160, rng)
    n_users = 20_000
    lengths = np.full(n_users, 6)
    items = demo._walk(world, rng.integers(demo.STYLES, size=n_users), lengths, rng)
    promised = demo._best_reachable(world, items, lengths)["best_recall_at_10"]
    history, target = items[:, :-1], items[:, -1]
    belief = demo._style_given_history(world, history)
    scores = (belief @ world.taste)[:, world.style] * world.weight
    scores *= world.follows[world.category[history[:, -1]]][:, world.category]
    np.put_along_axis(scores, history, 0, axis=1)
    rank = (scores > np.take_along_axis(scores, target[:, None], axis=1)).sum(axis=1)
    assert abs((rank < 10).mean() - promised) < 4 * np.sqrt(promised * (1 - promised) / n_users)


def test_a_share_of_the_steps_can_take_something_again() -> None:
    plain, again = make_demo_shop(SMALL), make_demo_shop(SMALL.model_copy(update={"repeats": 0.4}))
    assert "repeats" not in plain.facts and not any(name.startswith("best") for name in again.facts), "no longer known"
    rows = again.interactions.sort("user_id", "timestamp")
    pairs, users = rows.select(pl.struct("user_id", "item_id")).to_series(), rows["user_id"]
    later = ~users.is_first_distinct()
    assert 0.37 < (~pairs.is_first_distinct()).filter(later).mean() < 0.43  # type: ignore[operator]
