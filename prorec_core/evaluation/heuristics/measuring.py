"""A heuristic as something to be measured: its lists by the setting that validation chose, and a ranker's of the same.

Knows data, settings and heuristics; knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import Sequences
from prorec_core.evaluation.heuristics.base import Catalogue, Trial
from prorec_core.evaluation.heuristics.scored import Floats
from prorec_core.evaluation.reranking import Find, as_candidates, candidates_of, find_all, own_and_ranked, relations_of
from prorec_core.evaluation.stage import EvaluationInputs
from prorec_core.generation.candidates import OWN_CANDIDATES, Candidates
from prorec_core.generation.relations import near_of
from prorec_core.metrics.scorers import SCORERS
from prorec_core.metrics.top import TopItems
from prorec_core.progress import Report, silent

_LEAST = 1e-6
"""Gain of an item of which a heuristic knows nothing, where logarithms are asked for."""


def heuristic_inputs(
    scorer: str,
    dataset: Dataset,
    config: EvaluateConfig,
    texts_NS: Floats | None = None,
    report: Report = silent,
) -> EvaluationInputs:
    """A heuristic's lists, and what a light ranker fitted on validation users makes of its candidates.

    None of it depends on a seed: a comparison measures it once for all of them.

    Args:
        scorer: a name of `SCORERS` that has a heuristic.
        dataset: users and items; where it holds items out, those that read texts are asked over the larger catalogue.
        config: list length, beams and mask. The bonus of new items, which is in nats, is not given.
        texts_NS: text embeddings, those of new items after the others; None where it knows ids alone.
        report: told of users and of the ranker's training.
    """
    kind, sequences = SCORERS[scorer].heuristic_class(), dataset.sequences
    training, masked = sequences.training(), config.mask_history
    catalogue = Catalogue(
        kind, training, sequences.n_items, None if texts_NS is None else texts_NS[: sequences.n_items]
    )
    setting, trials = catalogue.choose(sequences, masked=masked, report=report)
    relations = relations_of(dataset, texts_NS)

    def find_in(catalogue: Catalogue) -> Find:
        def find(histories: Sequences) -> Candidates:
            k, own = candidates_of(config, histories.n_items), 0 if masked else OWN_CANDIDATES
            found = catalogue.lists(
                setting, histories, k, masked=masked, own=own, near=near_of(relations), report=report
            )
            return as_candidates(_in_nats(found) if kind.gains else found)

        return find

    with_new: Callable[[], Find] | None = None
    if texts_NS is not None:
        with_new = lambda: find_in(Catalogue(kind, training, dataset.n_items_with_new, texts_NS))  # noqa: E731
    found = find_all(dataset, find_in(catalogue), with_new)
    plain = config.model_copy(update={"new_item_bonus": 0.0})
    inputs = own_and_ranked(scorer, found, dataset, plain, 0, texts_NS, Candidates.listed, relations, report=report)
    return replace(inputs, heuristic=told(setting, trials))


def told(setting: dict[str, float], trials: Sequence[Trial]) -> dict[str, Any]:
    """What is said of a choice: `chosen`, the setting, and `trials`: what was tried, each with its `ndcg_at_10`."""
    return {
        "chosen": dict(setting),
        "trials": [{**trial.setting, "ndcg_at_10": round(trial.ndcg_at_10, 6)} for trial in trials],
    }


def _in_nats(lists: TopItems) -> TopItems:
    """The same lists by the logarithm of their scores, which keeps their order."""
    scores = np.log(np.maximum(lists.scores_UK, _LEAST))
    return TopItems(lists.items_UK, np.where(lists.items_UK >= 0, scores, -np.inf).astype(np.float32))
