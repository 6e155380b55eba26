"""A light ranker of what generation and the dense score have found: a softmax over a few features.

What the models do not see by themselves are single co-occurrences and how alike two texts are: both compress items
into vectors. A ranker of a handful of weights, fitted on validation users, brings that back; where there are users
enough, a small network goes on from it.

Knows candidates, histories, counts and texts; knows nothing of models or files. Axes: U users, C candidates, K items
of a list, H items of a history, N items, T dimensions of the text, F features, P folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.generation.candidates import Candidates, best_of
from prorec_core.generation.ranker_net import Examples, Network
from prorec_core.generation.relations import Relations
from prorec_core.metrics.measures import gains_at_k
from prorec_core.progress import Progress, Report, silent

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FOLDS = 5
_STANDARD_ERRORS = 1.96
"""In half a 95% interval."""
NETWORK_FROM = 500
"""Targets from which on a network is trained: of Amazon Beauty's 1,000 are enough, 300 are not."""
_PENALTY = 0.01
"""Of squared standardised weights, against the mean loss of a user."""
_FIT_CELLS = 22_750_000
"""Features of all users and candidates that a ranker is fitted on at most, float64: 7 of 130, of 25,000 users."""


@dataclass(frozen=True)
class Ranker:
    """Ranks candidates by a weighted sum of their features, or by a network that goes on from that.

    Attributes:
        relations: what features are made of besides the candidates' scores.
        weights_F: fitted on all validation users; of the features that the relations give, with or without OWN.
        folds_PF: fitted without the users of each fold; user u belongs to fold u mod P.
        network: those of all users and of each fold; None where the weights rank.
    """

    relations: Relations
    weights_F: Doubles
    folds_PF: Doubles
    network: Network | None = None

    @property
    def own(self) -> bool:
        """Whether it reads OWN too."""
        return len(self.weights_F) > len(self.relations.names(own=False))

    @property
    def names(self) -> tuple[str, ...]:
        """The features that it ranks by."""
        return self.relations.names(own=self.own)

    def rank(self, candidates: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        """Each user's k best candidates and their scores, log-probabilities up to a constant, both of shape (U, k)."""
        return self._ranked(candidates, histories, k, np.full(histories.n_users, -1))

    def rank_held_out(self, candidates: Candidates, histories: Sequences, k: int) -> tuple[IntArray, Floats]:
        """The same for the very users of the fit, in their order, each by weights that were fitted without them."""
        return self._ranked(candidates, histories, k, histories.owners % len(self.folds_PF))

    def scores(self, features_UCF: Floats, folds_U: npt.NDArray[np.integer]) -> Floats:
        """Scores of candidates, float32, shape (U, C), by what was fitted without each user's fold; -1: by all."""
        if self.network is not None:
            return self.network.scores(features_UCF, folds_U + 1)
        weights_UF = np.where(folds_U[:, None] < 0, self.weights_F, self.folds_PF[folds_U])
        found: Floats = np.einsum("ucf,uf->uc", features_UCF, weights_UF).astype(np.float32)
        return found

    def _ranked(
        self, candidates: Candidates, histories: Sequences, k: int, folds_U: npt.NDArray[np.integer]
    ) -> tuple[IntArray, Floats]:
        items_UC = candidates.items_UC
        scores_UC = np.full(items_UC.shape, -np.inf, np.float32)
        for users in self.relations.batches(candidates, np.arange(len(items_UC))):
            features_UCF = self.relations.features(candidates, histories, users, own=self.own)
            scores_UC[users] = self.scores(features_UCF, folds_U[users])
        return best_of(items_UC, np.where(items_UC >= 0, scores_UC, -np.inf).astype(np.float32), k)


def fit_ranker(
    candidates: Candidates,
    histories: Sequences,
    targets: IntArray,
    relations: Relations,
    *,
    own: bool = False,
    report: Report = silent,
) -> tuple[Ranker, dict[str, Any]]:
    """Fit a ranker on validation users and tell what it is worth to users that it was not fitted on.

    Minimised is the cross-entropy of the target among its candidates (a conditional logit, McFadden 1974), over targets
    that are among them (evenly spaced ones where they are very many), with a small penalty on the weights of
    standardised features. All targets of a user are in one fold, and what the ranker is worth is a mean over users.
    From `NETWORK_FROM` targets on a network is trained that goes on from the weights, and ranks where its NDCG@10 of
    users that neither was fitted on is the higher one.

    Args:
        candidates: of validation targets, a row each.
        histories: the items before each; whose they are says which targets are one user's.
        targets: the items that were taken, shape (U,).
        relations: what is known of the items.
        own: rank by OWN too.
        report: told of every network that is trained.

    Returns:
        The ranker; and `features`, `standardised` (weights of features in standard deviations), `ndcg_at_10` on
        validation by what was fitted without each fold, `linear_ndcg_at_10` by the weights alone, `network`: whether
        the network ranks, and `without`: by feature the difference in NDCG@10 where the weights are fitted without it,
        `difference`, `low` and `high` (95%, normal) each.
    """
    names = relations.names(own=own)
    hits = np.flatnonzero((candidates.items_UC == targets[:, None]).any(1))
    most = max(1, _FIT_CELLS // (candidates.items_UC.shape[1] * len(names)))
    chosen = hits[np.linspace(0, len(hits) - 1, min(len(hits), most)).astype(np.int64)] if len(hits) else hits
    parts = [
        relations.features(candidates, histories, users, own=own) for users in relations.batches(candidates, chosen)
    ]
    features_UCF = np.concatenate([np.zeros((0, candidates.items_UC.shape[1], len(names)), np.float32), *parts])
    items_UC = candidates.items_UC[chosen]
    there_UC = items_UC >= 0
    spread_F = features_UCF[there_UC].astype(np.float64).std(0) if len(chosen) else np.ones(len(names))
    spread_F = np.where(spread_F > 0, spread_F, 1.0)
    owners = histories.owners
    problem = _Problem(
        features_UCF / spread_F,
        items_UC,
        (items_UC == targets[chosen][:, None]).argmax(1),
        owners[chosen].astype(np.int64) % FOLDS,
    )
    everything = tuple(range(len(names)))
    whole_F = problem.fit(everything)
    folds_PF, gains_U = problem.held_out(everything)
    ranker = Ranker(relations, whole_F / spread_F, folds_PF / spread_F)
    # A user none of whose targets is a candidate gains nothing by any ranking.
    users, of_target, targets_a_user = np.unique(owners, return_inverse=True, return_counts=True)
    n_users = len(users) * len(chosen) / max(len(hits), 1)
    here, place_of = np.unique(of_target[chosen], return_inverse=True)

    def by_user(values_U: Doubles) -> Doubles:
        """Each user's share of a mean over all targets of that user."""
        sums: Doubles = np.bincount(place_of, values_U, len(here)) / targets_a_user[here]
        return sums

    without = {}
    for place, name in enumerate(names):
        columns = tuple(each for each in everything if each != place)
        differences_U = problem.held_out(columns)[1] - gains_U
        without[name] = _interval(by_user(differences_U), n_users)

    def worth(gains_U: Doubles) -> float:
        return round(float(by_user(gains_U).sum() / max(n_users, 1)), 6)

    gained_U, better = gains_U, False
    if len(chosen) >= NETWORK_FROM and whole_F.any():
        examples, of_folds = problem.examples(), list[Network]()
        for fold, weights_F in enumerate(folds_PF):
            of_folds.append(examples.train(weights_F, np.flatnonzero(problem.folds_U != fold), fold + 1))
            report(Progress(fold + 1, FOLDS + 1, "network of the ranker"))
        gained_U = problem.gains_of(of_folds)
        better = worth(gained_U) > worth(gains_U)
        if better:
            whole = examples.train(whole_F, np.arange(len(chosen)), 0)
            report(Progress(FOLDS + 1, FOLDS + 1, "network of the ranker"))
            ranker = replace(ranker, network=Network.stacked([whole, *of_folds]).scaled(spread_F))
    return ranker, {
        "features": list(names),
        "standardised": _rounded(whole_F),
        "ndcg_at_10": worth(gained_U if better else gains_U),
        "linear_ndcg_at_10": worth(gains_U),
        "network": better,
        "without": without,
    }


@dataclass(frozen=True)
class _Problem:
    """Users with their target among their candidates: standardised features, items, the target's place, the fold."""

    features_UCF: Doubles
    items_UC: IntArray
    targets_U: npt.NDArray[np.int64]
    folds_U: npt.NDArray[np.int64]

    def fit(self, columns: Sequence[int], users: npt.NDArray[np.bool_] | None = None) -> Doubles:
        """Weights of least loss over some users, 0 for features that are not among the columns; shape (F,)."""
        columns = list(columns)
        found_F = np.zeros(self.features_UCF.shape[2])
        use = slice(None) if users is None else users
        x_UCF, there_UC, targets_U = self.features_UCF[use], self.items_UC[use] >= 0, self.targets_U[use]
        if len(columns) < len(found_F):
            x_UCF = x_UCF[:, :, columns]
        if not len(x_UCF):
            return found_F
        target_UF = x_UCF[np.arange(len(x_UCF)), targets_U]
        flat = x_UCF.reshape(-1, len(columns))

        def shares(weights_F: Doubles) -> tuple[Doubles, Doubles]:
            scores_UC = np.where(there_UC, x_UCF @ weights_F, -np.inf)
            top_U1 = scores_UC.max(1, keepdims=True)
            masses_UC = np.exp(scores_UC - top_U1)
            total_U1 = masses_UC.sum(1, keepdims=True)
            return masses_UC / total_U1, (top_U1 + np.log(total_U1))[:, 0]

        def loss(weights_F: Doubles) -> tuple[float, Doubles]:
            p_UC, normaliser_U = shares(weights_F)
            value = (normaliser_U - target_UF @ weights_F).mean() + _PENALTY * weights_F @ weights_F
            slope_F = (p_UC.ravel() @ flat - target_UF.sum(0)) / len(x_UCF) + 2 * _PENALTY * weights_F
            return float(value), slope_F

        def curvature(weights_F: Doubles) -> Doubles:
            p_UC = shares(weights_F)[0]
            mean_UF = np.einsum("uc,ucf->uf", p_UC, x_UCF)
            spread_FF: Doubles = ((flat * p_UC.reshape(-1, 1)).T @ flat - mean_UF.T @ mean_UF) / len(x_UCF)
            return spread_FF + 2 * _PENALTY * np.eye(len(columns))

        found_F[columns] = minimize(
            loss, np.zeros(len(columns)), method="trust-exact", jac=True, hess=curvature, tol=1e-6
        ).x
        return found_F

    def held_out(self, columns: Sequence[int]) -> tuple[Doubles, Doubles]:
        """Weights without each fold, shape (P, F), and each user's NDCG@10 by those fitted without it, shape (U,)."""
        folds_PF = np.stack([self.fit(columns, self.folds_U != fold) for fold in range(FOLDS)])
        return folds_PF, self._gains(np.einsum("ucf,uf->uc", self.features_UCF, folds_PF[self.folds_U]))

    def examples(self) -> Examples:
        """The same for networks."""
        return Examples.of(self.features_UCF.astype(np.float32), self.items_UC >= 0, self.targets_U)

    def gains_of(self, networks: Sequence[Network]) -> Doubles:
        """Each user's NDCG@10 by the network of its fold, shape (U,)."""
        scores_UC = Network.stacked(networks).scores(self.features_UCF.astype(np.float32), self.folds_U)
        # What is no number is told apart from nothing.
        return self._gains(np.nan_to_num(scores_UC.astype(np.float64), nan=0.0))

    def _gains(self, scores_UC: Doubles) -> Doubles:
        """Each user's NDCG@10, shape (U,)."""
        own_U1 = np.take_along_axis(scores_UC, self.targets_U[:, None], 1)
        item_U1 = np.take_along_axis(self.items_UC, self.targets_U[:, None], 1)
        # In the order of `best_of`: of equal ones the lower index first.
        before_UC = (scores_UC > own_U1) | ((scores_UC == own_U1) & (self.items_UC < item_U1))
        rank_U = (before_UC & (self.items_UC >= 0)).sum(1) + 1
        return gains_at_k(rank_U, 10)


def _interval(differences_U: Doubles, n_users: float) -> dict[str, float]:
    """Mean difference over all users, who but for those given have none, with its 95% interval."""
    mean = float(differences_U.sum()) / max(n_users, 1)
    variance = max(float((differences_U**2).sum()) / max(n_users, 1) - mean**2, 0.0)
    half = _STANDARD_ERRORS * float(np.sqrt(variance / max(n_users, 1)))
    return {"difference": round(mean, 6), "low": round(mean - half, 6), "high": round(mean + half, 6)}


def _rounded(values: Doubles) -> list[float]:
    return [round(float(value), 6) for value in values]
