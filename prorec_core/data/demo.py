"""A generated shop whose best reachable recall is known by construction.

Knows the planted structure. Knows nothing of files, filters or models.

Every item has a category, which its text shows, and a style, which nothing but its buyers shows. Every user has a
style of their own. The next item of a user u after an item of category c is drawn, never twice the same, from

    P(item | c, u)  ∝  T[c, category(item)] · S[style(u), style(item)] · w[item]

With `repeats` r a step takes, with chance r, one of the user's earlier steps again (so an item the more probably, the
more often it was taken), and else a new item as above.

T is sparse: three categories tend to follow each one. S favours the user's own style. w is the long-tailed
popularity of an item within its cell of category and style. Text alone knows the first factor, buyers the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from prorec_core.config_data import DemoShop
from prorec_core.data.demo_words import ADJECTIVES, BRANDS, CATEGORIES, FINISHES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STYLES = 4
_ITEMS_PER_CATEGORY = 40
_FOLLOWERS = (0.50, 0.25, 0.15)
_OWN_STYLE = 0.85
_TAIL = 0.9
_SHORTEST, _MEAN, _LONGEST = 5, 9, 24
_TOP = 10
_START = 1_672_531_200
_JUDGED_USERS = 20_000
_CELLS_A_BLOCK = 4_000_000


@dataclass(frozen=True)
class DemoData:
    """The shop's tables, as a source gives them, and what is known about them by construction."""

    interactions: pl.DataFrame
    items: pl.DataFrame
    facts: dict[str, Any]


@dataclass(frozen=True)
class _World:
    """The planted structure: category (n,), style (n,), w (n,), T (C, C), S (G, G)."""

    category: Ints
    style: Ints
    weight: Floats
    follows: Floats
    taste: Floats

    def cell_probabilities(self) -> tuple[Ints, Ints, Floats]:
        """Items sorted by cell, the first position of each cell, and the running sum of weights in each cell."""
        cell = self.category * STYLES + self.style
        order = np.argsort(cell, kind="stable")
        starts = np.searchsorted(cell[order], np.arange(len(self.follows) * STYLES + 1))
        return order, starts, np.concatenate([[0.0], np.cumsum(self.weight[order])])


def make_demo_shop(config: DemoShop) -> DemoData:
    """Generate the shop: the same configuration gives the same shop."""
    rng = np.random.default_rng(config.seed)
    world = _plant(config.items, rng)
    styles = rng.integers(STYLES, size=config.users)
    lengths = _lengths(config, rng)
    items_UT = _walk(world, styles, lengths, rng, config.repeats)
    ids = [f"P{number:05d}" for number in range(config.items)]
    return DemoData(
        interactions=_interactions(items_UT, lengths, np.array(ids), rng),
        items=_catalogue(world, ids, rng),
        facts={
            "users": config.users,
            "items": config.items,
            "seed": config.seed,
            "categories": len(world.follows),
            "styles": STYLES,
            **({"repeats": config.repeats} if config.repeats else _best_reachable(world, items_UT, lengths)),
        },
    )


def _plant(n_items: int, rng: np.random.Generator) -> _World:
    n_categories = int(np.clip(n_items // _ITEMS_PER_CATEGORY, 4, len(CATEGORIES)))
    place = rng.permutation(n_items)
    category, style = place % n_categories, place // n_categories % STYLES
    rank_in_cell = place // (n_categories * STYLES)
    weight = np.power(1.0 + rank_in_cell, -_TAIL, dtype=np.float64)
    cell = category * STYLES + style
    weight /= np.bincount(cell, weight)[cell]

    appeal = rng.uniform(0.5, 1.5, size=n_categories)
    follows = np.tile((1 - sum(_FOLLOWERS)) * appeal / appeal.sum(), (n_categories, 1))
    ring = rng.permutation(n_categories)
    for share, shift in zip(_FOLLOWERS, rng.choice(np.arange(1, n_categories), len(_FOLLOWERS), False), strict=True):
        follows[ring, np.roll(ring, -shift)] += share
    taste = np.full((STYLES, STYLES), (1 - _OWN_STYLE) / (STYLES - 1))
    np.fill_diagonal(taste, _OWN_STYLE)
    return _World(category, style, weight, follows, taste)


def _lengths(config: DemoShop, rng: np.random.Generator) -> Ints:
    extra = rng.negative_binomial(2, 2 / (2 + _MEAN - _SHORTEST), size=config.users)
    return np.minimum(_SHORTEST + extra, min(_LONGEST, config.items // 2))


def _walk(world: _World, styles: Ints, lengths: Ints, rng: np.random.Generator, repeats: float = 0.0) -> Ints:
    """Every user's items in order, padded with -1; a draw that the user already has is drawn again.

    But for the share of steps that repeat an earlier one.
    """
    n_users, n_steps = len(styles), int(lengths.max())
    items_UT = np.full((n_users, n_steps), -1, dtype=np.int64)
    order, starts, running = world.cell_probabilities()
    follows, taste = np.cumsum(world.follows, axis=1), np.cumsum(world.taste, axis=1)
    last = rng.integers(len(world.follows), size=n_users)
    for step in range(n_steps):
        open_users = np.flatnonzero(lengths > step)
        if repeats and step:
            again = open_users[rng.random(len(open_users)) < repeats]
            items_UT[again, step] = items_UT[again, rng.integers(step, size=len(again))]
            open_users = np.setdiff1d(open_users, again)
        while len(open_users):
            category = _draw(follows[last[open_users]], rng)
            cell = category * STYLES + _draw(taste[styles[open_users]], rng)
            low, high = running[starts[cell]], running[starts[cell + 1]]
            position = np.searchsorted(running, low + (high - low) * rng.random(len(cell)), side="right") - 1
            drawn = order[np.clip(position, starts[cell], starts[cell + 1] - 1)]
            fresh = (items_UT[open_users] != drawn[:, None]).all(axis=1)
            items_UT[open_users[fresh], step] = drawn[fresh]
            open_users = open_users[~fresh]
        moved = lengths > step
        last[moved] = world.category[items_UT[moved, step]]
    return items_UT


def _draw(running_BK: Floats, rng: np.random.Generator) -> Ints:
    """One index for each row of cumulative probabilities."""
    index: Ints = (running_BK < rng.random(len(running_BK))[:, None]).sum(axis=1).clip(max=running_BK.shape[1] - 1)
    return index


def _best_reachable(world: _World, items_UT: Ints, lengths: Ints) -> dict[str, float]:
    """Expected Recall@10 and NDCG@10 of the test item under the best rankings, the history masked.

    `best` ranks by the true distribution of the next item given the history, the user's style being inferred from it
    by Bayes' rule. `text_only` knows categories and what follows them, not styles, and how popular an item is. What
    behaviour alone could reach has no such bound: who follows whom tells of both. Each is judged by the true
    distribution, over the first 20,000 users of the shop as generated, before any filter.
    """
    found: dict[str, list[Floats]] = {}
    judged = np.arange(min(len(lengths), _JUDGED_USERS))
    for block in np.array_split(judged, -(-len(judged) * len(world.category) // _CELLS_A_BLOCK)):
        history_UT = np.where(np.arange(items_UT.shape[1]) < lengths[block, None] - 1, items_UT[block], -1)
        belief_UG = _style_given_history(world, history_UT)
        last = history_UT[np.arange(len(block)), lengths[block] - 2]
        by_style_UN = (belief_UG @ world.taste)[:, world.style] * world.weight
        by_category_UN = world.follows[world.category[last]][:, world.category] * world.weight
        true_UN = by_style_UN * world.follows[world.category[last]][:, world.category]
        rankings = {
            "best": true_UN,
            "text_only": by_category_UN,
        }
        rows, columns = np.nonzero(history_UT >= 0)
        for scores_UN in rankings.values():
            scores_UN[rows, history_UT[rows, columns]] = 0
        true_UN /= true_UN.sum(axis=1, keepdims=True)
        for name, scores_UN in rankings.items():
            found.setdefault(name, []).append(_hit_chances(scores_UN, true_UN))
    discount = 1 / np.log2(np.arange(2, _TOP + 2))
    facts = {}
    for name, blocks in found.items():
        mean_K = np.concatenate(blocks).mean(axis=0)
        facts[f"{name}_recall_at_{_TOP}"] = round(float(mean_K.sum()), 6)
        facts[f"{name}_ndcg_at_{_TOP}"] = round(float(mean_K @ discount), 6)
    return facts


def _style_given_history(world: _World, history_UT: Ints) -> Floats:
    """Bayes' posterior of each user's style; a step's chances are those of items that the user did not have yet."""
    n_users, n_steps = history_UT.shape
    log_belief_UG = np.zeros((n_users, STYLES))
    joint_UTG = world.taste.T[world.style[history_UT]] * world.weight[history_UT][..., None]
    for step in range(1, n_steps):
        at = np.flatnonzero(history_UT[:, step] >= 0)
        if not len(at):
            break
        after = world.follows[world.category[history_UT[at, step - 1]]]
        categories = world.category[history_UT[at, :step]]
        chances = np.take_along_axis(after, categories, axis=1)
        seen_UG = np.einsum("ut,utg->ug", chances, joint_UTG[at, :step])
        log_belief_UG[at] += np.log(joint_UTG[at, step]) - np.log1p(-seen_UG)
    log_belief_UG += np.log(joint_UTG[:, 0])
    belief_UG: Floats = np.exp(log_belief_UG - log_belief_UG.max(axis=1, keepdims=True))
    belief_UG /= belief_UG.sum(axis=1, keepdims=True)
    return belief_UG


def _hit_chances(scores_UN: Floats, true_UN: Floats) -> Floats:
    """True chance of the item at each of the first ranks of a ranking, shape (users, 10)."""
    top = min(_TOP, scores_UN.shape[1])
    best_UK = np.argpartition(-scores_UN, top - 1, axis=1)[:, :top]
    order = np.argsort(-np.take_along_axis(scores_UN, best_UK, axis=1), axis=1, kind="stable")
    return np.take_along_axis(true_UN, np.take_along_axis(best_UK, order, axis=1), axis=1)


def _interactions(items_UT: Ints, lengths: Ints, ids: npt.NDArray[np.str_], rng: np.random.Generator) -> pl.DataFrame:
    kept = items_UT >= 0
    gaps = rng.integers(3_600, 14 * 86_400, size=items_UT.shape)
    times = _START + rng.integers(0, 180 * 86_400, size=(len(lengths), 1)) + np.cumsum(gaps, axis=1)
    width = len(str(len(lengths) - 1))
    users = np.array([f"U{user:0{width}d}" for user in range(len(lengths))])
    return pl.DataFrame(
        {
            "user_id": np.repeat(users, lengths),
            "item_id": ids[items_UT[kept]],
            "timestamp": times[kept],
        }
    )


def _catalogue(world: _World, ids: list[str], rng: np.random.Generator) -> pl.DataFrame:
    words = [rng.integers(len(choices), size=len(ids)) for choices in (BRANDS, ADJECTIVES, FINISHES)]
    products = rng.integers(2**31, size=len(ids))
    titles, categories = [], []
    for category, brand, adjective, finish, product in zip(world.category, *words, products, strict=True):
        department, name, nouns = CATEGORIES[category]
        noun = nouns[product % len(nouns)]
        titles.append(f"{BRANDS[brand]} {ADJECTIVES[adjective]} {noun}, {FINISHES[finish]}")
        categories.append([department, name])
    return pl.DataFrame({"item_id": ids, "title": titles, "categories": categories})
