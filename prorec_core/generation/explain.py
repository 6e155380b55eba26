"""Why an item was recommended: what each part of the score gave it, and its codes in words.

Knows a recommender and how its score is put together; knows nothing of files or HTTP. An item's contributions add up to
its score less a baseline: that of the mean of all candidates of the history, the items that generation, the dense
score or, where the ranker recommends, item-kNN found worth a look. So a contribution says how much a part sets the item
apart from those, up or down.

Axes: U histories, C candidates, K items of a list, F parts, L levels of codes, H latest items of a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.generation.allowed import Rules
from prorec_core.generation.candidates import Candidates, item_step_log_probabilities, last_context
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.relations import Relations
from prorec_core.generation.scoring import Ranked, Scoring
from prorec_core.generation.words import Shared
from prorec_core.metrics.top import TopItems
from prorec_core.training.batching import at_a_time, inference_batches

Floats = npt.NDArray[np.float32]
POPULAR = "popular"
"""What recommends to a history without a known item."""
_TOKENS = 16_384
_CELLS = 6_000_000


@dataclass(frozen=True)
class Explained:
    """Lists with their reasons. What a part has no say in is nan or -1; so is all of it where popularity recommends.

    Attributes:
        scorer: whose lists they are.
        items_UK, scores_UK: as `Recommender.top` gives them.
        parts: names of the F parts.
        baseline_U: float32; the score of the history's mean candidate.
        contributions_UKF: float32; their sum is the score less the baseline.
        followed_UK: the latest item of the history that the item has followed most (each counts the less the longer
            ago it was, as in the ranker), int32, -1 where it has followed none or nothing is known of that.
        similar_UK: the latest item of nearest text, int32, -1 where no text is known.
        cosine_UK: of these texts, float32.
        steps_UKL: log-probability of each of the item's codes after those before it, float32.
    """

    scorer: str
    items_UK: IntArray
    scores_UK: Floats
    parts: Sequence[str]
    baseline_U: Floats
    contributions_UKF: Floats
    followed_UK: IntArray
    similar_UK: IntArray
    cosine_UK: Floats
    steps_UKL: Floats

    @property
    def lists(self) -> TopItems:
        """The lists alone."""
        return TopItems(self.items_UK, self.scores_UK)


def explain(
    recommender: Recommender,
    histories: Sequences,
    k: int,
    *,
    mask_history: bool | None = None,
    rules: Rules | None = None,
    scoring: Scoring | None = None,
    found: Candidates | None = None,
) -> Explained:
    """The lists of `Recommender.top`, with their reasons.

    Args:
        recommender: the model.
        histories: whose lists.
        k: items a list.
        mask_history: leave out what a history has; None: as the model was measured.
        rules: as `Recommender.recommend` has them.
        scoring: another of the model's scores than the one that recommends.
        found: the candidates of histories none of which is empty, where they are there already.
    """
    scoring = scoring or recommender.scoring
    k = recommender.at_most(k)
    best = recommender.top_of_empty(histories, k, rules)
    users, parts, depth = histories.n_users, scoring.parts, recommender.generator.trie.depth
    baseline_U = np.full(users, np.nan, np.float32)
    contributions_UKF = np.full((users, k, len(parts)), np.nan, np.float32)
    followed_UK, similar_UK = (np.full((users, k), -1, np.int32) for _ in range(2))
    cosine_UK, steps_UKL = np.full((users, k), np.nan, np.float32), np.full((users, k, depth), np.nan, np.float32)
    some = np.flatnonzero(np.diff(histories.offsets))
    if len(some):
        known = histories.select(some)
        own = None if rules is None else [rules[int(user)] for user in some]
        found = found or recommender.candidates(
            known, k, mask_history=mask_history, rules=own, ranked=isinstance(scoring, Ranked)
        )
        items_UK, best.scores_UK[some] = scoring(found, known, k)
        best.items_UK[some] = items_UK
        with np.errstate(invalid="ignore"):
            baseline_U[some], chosen_UKF = scoring.contributions(found, known, _places(found, items_UK))
        contributions_UKF[some] = np.where((items_UK >= 0)[:, :, None], chosen_UKF, np.nan)
        if isinstance(scoring, Ranked):
            told = _latest_reasons(scoring.ranker.relations, known, items_UK)
            followed_UK[some], similar_UK[some], cosine_UK[some] = told
        steps_UKL[some] = _steps(recommender, known, items_UK)
    return Explained(
        scoring.name,
        best.items_UK,
        best.scores_UK,
        parts,
        baseline_U,
        contributions_UKF,
        followed_UK,
        similar_UK,
        cosine_UK,
        steps_UKL,
    )


def _places(found: Candidates, items_UK: IntArray) -> npt.NDArray[np.int64]:
    """Where each listed item stands among its history's candidates; anywhere where there is none."""
    order_UC = np.argsort(found.items_UC, axis=1, kind="stable")
    places = [
        order[np.searchsorted(items, wanted, sorter=order).clip(max=len(order) - 1)]
        for items, order, wanted in zip(found.items_UC, order_UC, items_UK, strict=True)
    ]
    return np.stack(places)


def _latest_reasons(relations: Relations, known: Sequences, items_UK: IntArray) -> tuple[IntArray, IntArray, Floats]:
    users = np.arange(known.n_users)
    latest_UH = relations.latest(known, users)
    followed_UK, similar_UK = (np.full(items_UK.shape, -1, np.int32) for _ in range(2))
    cosine_UK = np.full(items_UK.shape, np.nan, np.float32)
    decay_H = relations.decay()
    for user in users:
        latest_H = latest_UH[user][latest_UH[user] >= 0]
        there = np.flatnonzero(items_UK[user] >= 0)
        items = items_UK[user][there]
        if not len(latest_H) or not len(items):
            continue
        times_HK = relations.successors[latest_H][:, items].toarray() * decay_H[: len(latest_H), None]
        most_K = times_HK.argmax(0)
        followed_UK[user, there] = np.where(times_HK.max(0) > 0, latest_H[most_K], -1)
        cosine_HK = relations.texts_NT[latest_H] @ relations.texts_NT[items].T
        similar_UK[user, there] = latest_H[cosine_HK.argmax(0)]
        cosine_UK[user, there] = cosine_HK.max(0)
    return followed_UK, similar_UK, cosine_UK


@torch.no_grad()
def _steps(recommender: Recommender, known: Sequences, items_UK: IntArray) -> Floats:
    generator = recommender.generator
    depth, device = generator.trie.depth, generator.inputs_NE.device
    steps_UKL = np.full((*items_UK.shape, depth), np.nan, np.float32)
    most = max(1, at_a_time(_CELLS, device) // (items_UK.shape[1] * max(generator.trie.widest)))
    for batch in inference_batches(known, generator.config.max_history, at_a_time(_TOKENS, device), most, device):
        users = batch.users_B.cpu().numpy()
        asked = torch.from_numpy(items_UK[users].astype(np.int64)).to(device).clamp(min=0)
        steps = item_step_log_probabilities(generator, last_context(generator, batch), asked)
        for level, step_UK in enumerate(steps):
            steps_UKL[users, :, level] = step_UK.cpu().numpy()
    steps_UKL[items_UK < 0] = np.nan
    return steps_UKL


@dataclass(frozen=True)
class Step:
    """One code of an item: the items with this code after the same codes before, and what they have in common.

    Attributes:
        code: at its level.
        log_probability: after the codes before it; None where popularity recommends.
        shared: words and number of the items.
    """

    code: int
    log_probability: float | None
    shared: Shared


@dataclass(frozen=True)
class Part:
    """What one part of the score gave an item; `item` is the item of the history that it looks at, if it looks at one.

    `value` is what the part knows: a log-probability (generative), a cosine (text), times in training
    (popularity); None where it has no such number.
    """

    name: str
    contribution: float
    item: int | None = None
    value: float | None = None


@dataclass(frozen=True)
class Reason:
    """Why one item was recommended.

    Attributes:
        scorer: generative, fused, ranked, or popular for a history without a known item.
        baseline: the score of the history's mean candidate; None for popular.
        parts: whose contributions add up to the score less the baseline.
        steps: its codes.
    """

    scorer: str
    baseline: float | None
    parts: Sequence[Part]
    steps: Sequence[Step]


def reasons(recommender: Recommender, told: Explained, user: int) -> list[Reason]:
    """The reasons of one history's list, in its order; in words."""
    found = []
    for place, item in enumerate(told.items_UK[user]):
        if item < 0:
            break
        is_popular = bool(np.isnan(told.baseline_U[user]))
        steps = _in_words(recommender, told, user, place)
        if is_popular:
            found.append(Reason(POPULAR, None, [], steps))
            continue
        parts = [
            Part(
                name, float(told.contributions_UKF[user, place, number]), *_about(recommender, told, name, user, place)
            )
            for number, name in enumerate(told.parts)
        ]
        found.append(Reason(told.scorer, float(told.baseline_U[user]), parts, steps))
    return found


def _about(
    recommender: Recommender, told: Explained, name: str, user: int, place: int
) -> tuple[int | None, float | None]:
    if name == "successor" and told.followed_UK[user, place] >= 0:
        return int(told.followed_UK[user, place]), None
    if name == "text" and told.similar_UK[user, place] >= 0:
        return int(told.similar_UK[user, place]), float(told.cosine_UK[user, place])
    if name == "popularity":
        return None, float(recommender.train_counts[told.items_UK[user, place]])
    if name == "generative":
        return None, float(told.steps_UKL[user, place].sum())
    return None, None


def _in_words(recommender: Recommender, told: Explained, user: int, place: int) -> list[Step]:
    trie, item = recommender.generator.trie, int(told.items_UK[user, place])
    steps = []
    for level in range(trie.depth):
        log_p = float(told.steps_UKL[user, place, level])
        shared = recommender.words.of(level + 1, int(trie.path[item, level]))
        steps.append(Step(int(trie.codes[item, level]), None if np.isnan(log_p) else log_p, shared))
    return steps


_SAYS = {
    "generative": "generation",
    "dense": "dense score",
    "successor": "what followed",
    "text": "nearness of text",
    "popularity": "popularity",
    "predecessor": "what came before",
    "item_knn": "what others have beside the history",
    "own_count": "how often the history has it",
    "own_recency": "how lately the history had it",
}


def told(recommender: Recommender, reason: Reason) -> list[str]:
    """A reason as lines for people: each part with its contribution, the largest first, and the codes in words."""
    lines = []
    for part in sorted(reason.parts, key=lambda part: -abs(part.contribution)):
        about = "" if part.item is None else f" ({recommender.titles[part.item]})"
        lines.append(f"{part.contribution:+.2f} {_SAYS[part.name]}{about}")
    if reason.baseline is not None:
        lines.append(f"from {reason.baseline:.2f}, the score of the history's mean candidate")
    else:
        lines.append("nothing of the history is known: popular")
    steps = [f"{step.code} ({', '.join(step.shared.words) or 'one item'})" for step in reason.steps]
    return [*lines, f"codes: {' › '.join(steps)}"]
