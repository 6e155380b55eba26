"""What validation decides once a generator is trained: the fusion weight, the ranker, and which score recommends.

Knows candidates and targets; knows nothing of models or training. Axes: U users, K items of a list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.generation.candidates import Candidates
from prorec_core.generation.ranker import FOLDS, fit_ranker
from prorec_core.generation.ranker_file import GivenRanker
from prorec_core.generation.ranker_net import Network
from prorec_core.generation.relations import Relations
from prorec_core.metrics.measures import ndcg_at_k
from prorec_core.metrics.top import rank_of_target
from prorec_core.progress import Report, silent


def choose(
    find: Callable[[], Candidates],
    weights: Sequence[float],
    relations: Relations | None,
    histories: Sequences,
    targets: IntArray,
    given: GivenRanker | None = None,
    *,
    own: bool = False,
    report: Report = silent,
) -> tuple[dict[str, Any], Network | None]:
    """Choose on validation users.

    Args:
        find: makes their candidates; not asked where nothing is to be chosen.
        weights: weights λ of the dense score; none where there is no dense score.
        relations: what a ranker knows of items; None where there is to be none.
        histories: the items before each target; whose they are says which targets stay together.
        targets: the items that were taken, shape (U,).
        given: the ranker where no users are left to fit one on.
        own: what a user has may be recommended again, so that the ranker looks at it.
        report: told of every network of the ranker.

    Returns:
        `fusion_weight`, None without weights; `fusion_trials`, each weight and its NDCG@10, none where only one was
        given; `fusion_folds`, by fold the weight that the users of all others choose, none where nothing was chosen;
        `ranker`: its `weights` and `folds`, and what `fit_ranker` tells where it was fitted, or None, also
        where no target is among the candidates;
        `recommended`: the best of generative, fused and ranked; where nothing is left to choose on, the last of them;
        and `validation_tells`: False where every score has an NDCG@10 of 0. Then λ is the weight nearest to 1, and
        what recommends is the fused score, or the generative one where there is no other. And
        the ranker's network, if it has one.
    """
    if len(weights) <= 1 and (relations is None or given is not None):
        weight, as_given, given_network = weights[0] if weights else None, None, None
        recommended = "generative" if weight is None else "fused"
        if relations is not None and given is not None:
            given_network = None if given.network is None else Network.from_numbers(given.network.model_dump())
            as_given = {"features": given.features, "weights": given.weights, "folds": [given.weights]}
            as_given["network"] = given_network is not None
            recommended = "ranked"
        settled: dict[str, Any] = {
            "fusion_weight": weight,
            "fusion_trials": [],
            "fusion_folds": [],
            "ranker": as_given,
            "recommended": recommended,
            "validation_tells": True,
        }
        return settled, given_network
    found = find()
    owners = histories.owners
    reached = {"generative": ndcg_at_k(rank_of_target(found.generative(10)[0], targets), 10, owners)}
    trials, folds, weight, ranker, network = list[tuple[float, float]](), list[float](), None, None, None
    if weights:
        weight, trials, folds, reached["fused"] = choose_weight(found, targets, weights, owners)
    if relations is not None:
        fitted, about = fit_ranker(found, histories, targets, relations, own=own, report=report)
        # Without weights it would rank by the items' numbers.
        if fitted.weights_F.any():
            ranker = {**about, "weights": fitted.weights_F.tolist(), "folds": fitted.folds_PF.tolist()}
            reached["ranked"], network = about["ndcg_at_10"], fitted.network
    chosen = {
        "fusion_weight": weight,
        "fusion_trials": trials if len(weights) > 1 else [],
        "fusion_folds": folds if len(weights) > 1 else [],
        "ranker": ranker,
        "recommended": recommended_of(reached),
        "validation_tells": any(reached.values()),
    }
    return chosen, network


def recommended_of(reached: Mapping[str, float]) -> str:
    """The score of highest NDCG@10; of equal ones the simplest; where all have 0, fused if there is one."""
    if "fused" in reached and not any(reached.values()):
        return "fused"
    return max((name for name in ("generative", "fused", "ranked") if name in reached), key=lambda name: reached[name])


def best_trial(trials: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The weight of highest NDCG@10 and that, of equal ones the first; where all have 0, the weight nearest to 1.

    With 1 both scores count alike. Nearest is meant as a ratio: 0 is the farthest.
    """
    if not any(reached for _, reached in trials):
        return min(trials, key=lambda trial: abs(math.log(trial[0])) if trial[0] > 0 else math.inf)
    return max(trials, key=lambda trial: trial[1])


def fusion_trials(
    candidates: Candidates, targets: IntArray, weights: Sequence[float], owners: IntArray | None = None
) -> list[tuple[float, float]]:
    """The NDCG@10 that each weight λ reaches, the mean over users; `owners` says whose each target is."""
    return _trials(_ranks(candidates, targets, weights), owners)


def choose_weight(
    candidates: Candidates, targets: IntArray, weights: Sequence[float], owners: IntArray
) -> tuple[float, list[tuple[float, float]], list[float], float]:
    """The weight λ that validation chooses, what each one reaches, by fold the one that all others' users choose, and
    the NDCG@10 of all users, each by that of its fold.

    Args:
        candidates: those of validation users.
        targets: the items that were taken, shape (U,).
        weights: to choose from.
        owners: whose each target is, shape (U,); a user's fold is `owner % FOLDS`.
    """
    ranks = _ranks(candidates, targets, weights)
    trials = _trials(ranks, owners)
    return best_trial(trials)[0], trials, *_held_out(ranks, owners)


def weights_of_others(folds: Sequence[float], owners: IntArray) -> npt.NDArray[np.float32]:
    """Each target's λ as the users of all other folds chose it, shape (U,).

    Args:
        folds: the weights by fold, as of `choose_weight`.
        owners: whose each target is, shape (U,).
    """
    return np.asarray(folds, np.float32)[owners % len(folds)]


def _ranks(candidates: Candidates, targets: IntArray, weights: Sequence[float]) -> list[tuple[float, IntArray]]:
    return [(weight, rank_of_target(candidates.fused(weight, 10)[0], targets)) for weight in weights]


def _trials(ranks: Sequence[tuple[float, IntArray]], owners: IntArray | None) -> list[tuple[float, float]]:
    return [(weight, ndcg_at_k(ranks_T, 10, owners)) for weight, ranks_T in ranks]


def _held_out(ranks: Sequence[tuple[float, IntArray]], owners: IntArray) -> tuple[list[float], float]:
    """By fold the weight that the users of all others choose, and the NDCG@10 of all users, each by its fold's.

    The folds are the ranker's: what is weighed against each other is judged alike.
    """
    folds_T, held_out_T = owners % FOLDS, np.zeros(len(owners), np.int32)
    chosen, by_weight = [], dict(ranks)
    for fold in range(FOLDS):
        others = folds_T != fold
        weight, _ = best_trial(_trials([(each, found[others]) for each, found in ranks], owners[others]))
        held_out_T[~others] = by_weight[weight][~others]
        chosen.append(weight)
    return chosen, ndcg_at_k(held_out_T, 10, owners)
