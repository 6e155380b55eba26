"""What the light ranker makes of a baseline's lists, so that a generator's gain is not mistaken for its ranker's.

Knows candidates and data; knows nothing of models. Axes: U users, K items of a list, N items, T dimensions of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.config import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.evaluation.inputs import NewItemLists
from prorec_core.evaluation.new_items import new_item_histories
from prorec_core.generation.candidates import DENSE_CANDIDATES, Candidates
from prorec_core.generation.choice import CHOSEN_BY
from prorec_core.generation.ranker import Ranker, Relations, fit_ranker
from prorec_core.metrics.top import TopItems, rank_of_target
from prorec_core.sequential.base import validation_measures

RANKED = "ranked"
Floats = npt.NDArray[np.float32]
Own = Callable[[Candidates, int], tuple[IntArray, Floats]]
"""The k best candidates of each user by the baseline itself, and their scores."""


@dataclass(frozen=True)
class OwnAndRanked:
    """A baseline's lists as it makes them, and as a ranker does.

    Attributes:
        lists: for validation and test by scorer: the baseline's own, and `ranked` where a ranker was fitted; on
            validation each user is ranked by weights fitted without that user.
        new: the same with the new items in the catalogue; None without any.
        ranker: its `weights` and what is told of it (`fit_ranker`), without features of no weight, and `numbers`: how
            many it ranks by, weights, counts and texts; None where the validation items are trained on, which leaves
            none to fit it on, or where no target is a candidate.
        recommended: the scorer that is better on validation.
    """

    lists: dict[Split, dict[str, TopItems]]
    new: NewItemLists | None
    ranker: dict[str, Any] | None
    recommended: str


def with_long_lists(config: EvaluateConfig) -> EvaluateConfig:
    """The configuration with lists as long as what a generator's ranker chooses from: beams and dense candidates."""
    return config.model_copy(update={"list_length": config.beams + max(config.list_length, DENSE_CANDIDATES)})


def as_candidates(found: TopItems) -> Candidates:
    """Lists as candidates that have no generative score, and as dense one log-probabilities among those listed."""
    there_UK, nothing = found.items_UK >= 0, np.full(found.items_UK.shape, -np.inf, np.float32)
    with np.errstate(invalid="ignore"):
        log_p_UK = found.scores_UK - np.logaddexp.reduce(found.scores_UK, axis=1, keepdims=True)
    return Candidates(found.items_UK, nothing, np.where(there_UK, log_p_UK, nothing).astype(np.float32), 0)


def own_and_ranked(
    scorer: str,
    own: Own,
    found: Mapping[Split, Candidates],
    dataset: Dataset,
    texts_NT: Floats | None,
    config: EvaluateConfig,
    new: tuple[Candidates, Candidates] | None = None,
) -> OwnAndRanked:
    """A baseline's lists, and what a ranker fitted on its validation users makes of the same candidates.

    Args:
        scorer: name of the baseline's own lists.
        own: makes them.
        found: candidates of validation and test users.
        dataset: theirs.
        texts_NT: text embeddings, those of new items after the others; None where the baseline knows ids alone, and
            so no new items.
        config: how long the lists are, and the bonus of new items.
        new: candidates after the histories of `new_item_histories`, with the new items in the catalogue.
    """
    sequences = dataset.sequences
    fitted: tuple[Ranker, dict[str, Any]] | None = None
    if sequences.validates:
        known_NT = np.zeros((sequences.n_items, 1), np.float32) if texts_NT is None else texts_NT
        relations = Relations.of(sequences.training(), known_NT)
        histories, targets = sequences.histories(Split.VALIDATION), sequences.targets(Split.VALIDATION)
        ranker, about = fit_ranker(found[Split.VALIDATION], histories, targets, relations)
        tables = {name: table for name, table in relations.tensors().items() if texts_NT is not None or name != "texts"}
        numbers = len(ranker.weights_F) + sum(table.numel() for table in tables.values())
        # Where no target is a candidate nothing was learned, and it would rank by the items' numbers.
        if ranker.weights_F.any():
            fitted = ranker, {**_telling(ranker, about), "numbers": numbers}

    def made(candidates: Candidates, histories: Sequences, n_items: int, *, held_out: bool) -> dict[str, TopItems]:
        k = min(config.list_length, n_items)
        lists = {scorer: TopItems(*own(candidates, k))}
        if fitted is not None:
            rank = fitted[0].rank_held_out if held_out else fitted[0].rank
            lists[RANKED] = TopItems(*rank(candidates, histories, k))
        return lists

    lists = {
        split: made(each, sequences.histories(split), sequences.n_items, held_out=split is Split.VALIDATION)
        for split, each in found.items()
    }

    of_new = None
    if new is not None:
        known, takers = (
            made(each, histories, dataset.n_items_with_new, held_out=False)
            for each, histories in zip(new, new_item_histories(dataset), strict=True)
        )
        of_new = NewItemLists(known, takers, config.cold_bonus)
    recommended = scorer
    if fitted is not None:
        ranks = rank_of_target(lists[Split.VALIDATION][scorer].items_UK, sequences.targets(Split.VALIDATION))
        if fitted[1]["ndcg_at_10"] > validation_measures(ranks)[CHOSEN_BY]:
            recommended = RANKED
    return OwnAndRanked(lists, of_new, None if fitted is None else fitted[1], recommended)


def _telling(ranker: Ranker, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a ranker, without features of no weight."""
    kept = [place for place, weight in enumerate(ranker.weights_F) if weight]
    features = [about["features"][place] for place in kept]
    return {
        "features": features,
        "weights": [float(ranker.weights_F[place]) for place in kept],
        "standardised": [about["standardised"][place] for place in kept],
        "ndcg_at_10": about["ndcg_at_10"],
        "without": {name: about["without"][name] for name in features},
    }
