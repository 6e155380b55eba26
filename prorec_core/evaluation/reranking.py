"""A baseline's lists, and what the light ranker makes of them, so that a generator's gain is not mistaken for its own.

Knows candidates, data and what finds candidates; knows nothing of files. Axes: U users, K items of a list, N items,
T dimensions of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.evaluation.lists import dense_lists
from prorec_core.evaluation.new_items import NewItemLists, new_item_histories
from prorec_core.evaluation.stage import EvaluationInputs
from prorec_core.generation.candidates import DENSE_CANDIDATES, OWN_CANDIDATES, Candidates
from prorec_core.generation.ranker import Ranker, fit_ranker
from prorec_core.generation.relations import Relations, near_of
from prorec_core.metrics.measures import ndcg_at_k
from prorec_core.metrics.top import TopItems, rank_of_target
from prorec_core.progress import Report, silent
from prorec_core.sequential.base import SequentialModel

RANKED = "ranked"
Floats = npt.NDArray[np.float32]
Find = Callable[[Sequences], Candidates]
"""What a baseline finds after some histories, in the catalogue that these are of."""
Own = Callable[[Candidates, int], tuple[IntArray, Floats]]
"""The k best candidates of each user by the baseline itself, and their scores."""
OwnHeldOut = Callable[[Candidates, Sequences, int], tuple[IntArray, Floats]]
"""Those of validation users after these histories, each judged by what other users chose."""


@dataclass(frozen=True)
class Found:
    """A baseline's candidates.

    Attributes:
        known: of validation and test users.
        new: after the histories of `new_item_histories`, with the new items in the catalogue; None without any.
    """

    known: Mapping[Split, Candidates]
    new: tuple[Candidates, Candidates] | None = None


def find_all(dataset: Dataset, find: Find, with_new: Callable[[], Find] | None = None) -> Found:
    """Ask a baseline for all that is measured.

    Args:
        dataset: users, and the new items, if any.
        find: the baseline.
        with_new: gives it over the catalogue with the new items; asked where there are any. None: it knows ids alone.
    """
    known = {split: find(dataset.sequences.histories(split)) for split in (Split.VALIDATION, Split.TEST)}
    if dataset.new_items is None or with_new is None:
        return Found(known)
    find = with_new()
    everyone, takers = (find(histories) for histories in new_item_histories(dataset))
    return Found(known, (everyone, takers))


def sequential_find(
    model: SequentialModel,
    table_NE: Tensor,
    max_history: int,
    config: EvaluateConfig,
    offsets_N: Tensor | None = None,
    relations: Relations | None = None,
    report: Report = silent,
) -> Find:
    """A sequential model alone as a baseline.

    It gives as many candidates as a generator's ranker chooses from: beams and dense ones, and those beside them.

    Args:
        model: in evaluation mode.
        table_NE: the item vectors that it scores.
        max_history: items of a history that it reads.
        config: list length, beams and mask.
        offsets_N: what is added to each item's score, in nats.
        relations: of the ranker that is to choose; None: there is to be none.
        report: told of users.
    """
    near = near_of(relations)

    def find(histories: Sequences) -> Candidates:
        k, masked = candidates_of(config, histories.n_items), config.mask_history
        own = 0 if masked else OWN_CANDIDATES
        return as_candidates(
            dense_lists(
                *(model, table_NE, histories, k, max_history),
                masked=masked,
                offsets_N=offsets_N,
                own=own,
                near=near,
                report=report,
            )
        )

    return find


def relations_of(dataset: Dataset, texts_NT: Floats | None) -> Relations | None:
    """What a ranker knows of a data set's items; None where validation is trained on, and nobody is left to fit one on.

    Args:
        dataset: whose users are counted.
        texts_NT: as `own_and_ranked` has them; None: it knows who has the items and in which order.
    """
    if not dataset.sequences.validates:
        return None
    nothing_NT = np.zeros((dataset.sequences.n_items, 1), np.float32)
    return Relations.of(dataset.sequences.training(), nothing_NT if texts_NT is None else texts_NT)


def candidates_of(config: EvaluateConfig, n_items: int) -> int:
    """How many items a baseline finds for each user: as many as a generator and its dense score do, or all."""
    return min(config.beams + max(config.list_length, DENSE_CANDIDATES), n_items)


def as_candidates(found: TopItems) -> Candidates:
    """Lists as candidates that have no generative score, and as dense one log-probabilities among those listed."""
    there_UK, nothing = found.items_UK >= 0, np.full(found.items_UK.shape, -np.inf, np.float32)
    with np.errstate(invalid="ignore"):
        log_p_UK = found.scores_UK - np.logaddexp.reduce(found.scores_UK, axis=1, keepdims=True)
    return Candidates(found.items_UK, nothing, np.where(there_UK, log_p_UK, nothing).astype(np.float32), 0)


def own_and_ranked(
    scorer: str,
    found: Found,
    dataset: Dataset,
    config: EvaluateConfig,
    seed: int,
    texts_NT: Floats | None = None,
    own: Own = Candidates.dense,
    relations: Relations | None = None,
    own_held_out: OwnHeldOut | None = None,
    report: Report = silent,
) -> EvaluationInputs:
    """A baseline's lists, and what a ranker fitted on its validation users makes of the same candidates.

    Args:
        scorer: name of the baseline's own lists.
        found: its candidates.
        dataset: theirs.
        config: how long the lists are, and the bonus of new items.
        seed: of the experiment.
        texts_NT: text embeddings, those of new items after the others; None where the baseline knows ids alone, and
            so no new items.
        own: makes its own lists.
        relations: as `relations_of` gives them; None: they are made.
        own_held_out: makes its own lists of validation users, each by what others chose; None: `own` does.
        report: told of the ranker's training.

    Returns:
        What is measured, a scorer `ranked` too where a ranker was fitted, which is where validation items are not
        trained on and some target is a candidate; on validation it ranks each user by weights fitted without that
        user. Of the ranker is told what `fit_ranker` tells, without features of no weight, and `numbers`: how many it
        ranks by, weights, counts and texts. The scorer that is better on validation recommends.
    """
    sequences = dataset.sequences
    fitted: tuple[Ranker, dict[str, Any]] | None = None
    relations = relations or relations_of(dataset, texts_NT)
    if relations is not None:
        asked = sequences.answerable(Split.VALIDATION)
        histories = sequences.histories(Split.VALIDATION).select(asked)
        targets = sequences.targets(Split.VALIDATION)[asked]
        candidates = found.known[Split.VALIDATION].select(asked)
        ranker, about = fit_ranker(
            candidates, histories, targets, relations, own=not config.mask_history, report=report
        )
        tables = {name: table for name, table in relations.tensors().items() if texts_NT is not None or name != "texts"}
        numbers = len(ranker.weights_F) + sum(table.numel() for table in tables.values())
        numbers += 0 if ranker.network is None else ranker.network.numbers
        # Where no target is a candidate nothing was learned, and it would rank by the items' numbers.
        if ranker.weights_F.any():
            fitted = ranker, {**_telling(ranker, about), "numbers": numbers}

    def made(candidates: Candidates, histories: Sequences, *, held_out: bool = False) -> dict[str, TopItems]:
        k = min(config.list_length, histories.n_items)
        alone = own_held_out(candidates, histories, k) if held_out and own_held_out else own(candidates, k)
        lists = {scorer: TopItems(*alone)}
        if fitted is not None:
            rank = fitted[0].rank_held_out if held_out else fitted[0].rank
            lists[RANKED] = TopItems(*rank(candidates, histories, k))
        return lists

    lists = {
        split: made(each, sequences.histories(split), held_out=split is Split.VALIDATION)
        for split, each in found.known.items()
    }
    of_new = None
    if found.new is not None:
        known, takers = (
            made(each, histories) for each, histories in zip(found.new, new_item_histories(dataset), strict=True)
        )
        of_new = NewItemLists(known, takers, config.new_item_bonus)
    recommended = scorer
    if fitted is not None:
        ranks = rank_of_target(lists[Split.VALIDATION][scorer].items_UK[asked], targets)
        if fitted[1]["ndcg_at_10"] > ndcg_at_k(ranks, 10, histories.owner):
            recommended = RANKED
    told = None if fitted is None else fitted[1]
    return EvaluationInputs(config, dataset, lists, seed=seed, new=of_new, ranker=told, recommended=recommended)


def _telling(ranker: Ranker, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a ranker, without features of no weight."""
    kept = [place for place, weight in enumerate(ranker.weights_F) if weight]
    features = [about["features"][place] for place in kept]
    return {
        "features": features,
        "weights": [float(ranker.weights_F[place]) for place in kept],
        "standardised": [about["standardised"][place] for place in kept],
        **{name: about[name] for name in ("ndcg_at_10", "linear_ndcg_at_10", "network")},
        "without": {name: about["without"][name] for name in features},
    }
