"""What the light ranker makes of a baseline's lists, so that a generator's gain is not mistaken for its ranker's.

Knows candidates and data; knows nothing of models. Axes: U users, K items of a list, N items, T dimensions of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.artifacts import write_json
from prorec_core.config import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.evaluation.inputs import NewItemLists
from prorec_core.evaluation.new_items import new_item_histories
from prorec_core.evaluation.ranking import TopItems
from prorec_core.generation.candidates import DENSE_CANDIDATES, Candidates
from prorec_core.generation.ranker import Ranker, Relations, fit_ranker

RANKED, RANKER = "ranked", "ranker.json"
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
        ranker: what is told of it (`fit_ranker`), without features of no weight, and `numbers`: how many it ranks by,
            weights, counts and texts; None where the validation items are trained on, which leaves none to fit it on.
    """

    lists: dict[Split, dict[str, TopItems]]
    new: NewItemLists | None
    ranker: dict[str, Any] | None

    def save(self, folder: Path) -> None:
        """Write ranker.json, if there is a ranker."""
        if self.ranker is not None:
            write_json(folder / RANKER, self.ranker)


def with_candidates(config: EvaluateConfig) -> EvaluateConfig:
    """The configuration with lists as long as what a generator's ranker chooses from: beams and dense candidates."""
    return config.model_copy(update={"list_length": max(config.list_length, config.beams + DENSE_CANDIDATES)})


def as_candidates(found: TopItems) -> Candidates:
    """Lists as candidates that have a dense score and no generative one."""
    return Candidates(found.items_UK, np.full(found.items_UK.shape, -np.inf, np.float32), found.scores_UK, 0)


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
        texts_NT: text embeddings, those of new items after the others; None where the baseline knows ids alone.
        config: how long the lists are, and the bonus of new items.
        new: candidates after the histories of `new_item_histories`, with the new items in the catalogue.
    """
    sequences = dataset.sequences
    fitted: tuple[Ranker, dict[str, Any]] | None = None
    if sequences.validates:
        n_items = sequences.n_items if new is None else dataset.n_items_with_new
        texts_NT = np.zeros((n_items, 1), np.float32) if texts_NT is None else texts_NT
        relations = Relations.of(sequences.training(), texts_NT)
        histories, targets = sequences.histories(Split.VALIDATION), sequences.targets(Split.VALIDATION)
        ranker, about = fit_ranker(found[Split.VALIDATION], histories, targets, relations)
        numbers = len(ranker.weights_F) + sum(tensor.numel() for tensor in relations.tensors().values())
        fitted = ranker, {**_telling(about), "numbers": numbers}

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
    return OwnAndRanked(lists, of_new, None if fitted is None else fitted[1])


def _telling(about: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a ranker, without features of no weight."""
    weights = {name: weight for name, weight in zip(about["features"], about["standardised"], strict=True) if weight}
    return {
        **about,
        "features": list(weights),
        "standardised": list(weights.values()),
        "without": {name: about["without"][name] for name in weights},
    }
