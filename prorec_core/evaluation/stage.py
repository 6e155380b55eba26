"""Stage `evaluate`: every scorer's lists measured against the held-back items, and compared.

Knows lists, data and settings; knows nothing of the models behind the lists. Axes: U users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Split
from prorec_core.evaluation.baselines import with_fallback
from prorec_core.evaluation.measured import NEW_ITEMS, Evaluation
from prorec_core.evaluation.new_items import NewItemLists, new_item_metrics, new_targets
from prorec_core.evaluation.remarks import POPULARITY, no_better_than_popular, remarks, validation_tells
from prorec_core.evaluation.shortcuts import shortcut_metrics
from prorec_core.evaluation.slices import sliced_recall, what_is_asked
from prorec_core.metrics.intervals import compare
from prorec_core.metrics.measuring import list_metrics, measured_always, rank_metrics
from prorec_core.metrics.scorers import SCORERS
from prorec_core.metrics.top import TopItems, rank_of_target
from prorec_core.progress import Progress, Report, silent

_NAMES = {Split.VALIDATION: "validation", Split.TEST: "test"}
_OF_RANKER = ("features", "weights", "standardised", "ndcg_at_10", "linear_ndcg_at_10", "network", "without", "numbers")


@dataclass(frozen=True)
class EvaluationInputs:
    """What is measured.

    Attributes:
        config: the section `evaluate`.
        dataset: items, users, sequences and their profile; its `ties` are part of the protocol.
        lists: for validation and test the lists of each scorer, a row a target, all of one length; `evaluate` adds
            those of interactions alone that are measured everywhere.
        fusion_weight: λ of the dense score in the fused one; None where there is no fused scorer.
        seed: of the experiment.
        fusion_trials: the weights λ tried and the validation NDCG@10 of each.
        ranker: its features and weights and, where it was fitted here, what each feature adds (`fit_ranker`); None
            where there is none.
        recommended: the scorer by which the model recommends; "" for the first that is shown.
        new: recommendations with the new items of the data set in the catalogue; None where there are none.
        all_counts: add every scorer of interactions alone.
        heuristic: of a heuristic the numbers that validation `chosen` and its `trials`; None where there is none.
        ends: by split, of scorers whose lists were made elsewhere, how many items the longest has; nothing is put in
            place of these lists.
        remarks: what is to be told of the lists, a sentence each.
    """

    config: EvaluateConfig
    dataset: Dataset
    lists: Mapping[Split, Mapping[str, TopItems]]
    fusion_weight: float | None = None
    seed: int = 0
    fusion_trials: Sequence[tuple[float, float]] = ()
    ranker: Mapping[str, Any] | None = None
    recommended: str = ""
    new: NewItemLists | None = None
    all_counts: bool = False
    heuristic: Mapping[str, Any] | None = None
    ends: Mapping[Split, Mapping[str, int]] = field(default_factory=dict)
    remarks: Sequence[str] = ()


def evaluate(inputs: EvaluationInputs, report: Report = silent) -> Evaluation:
    """Measure every scorer on validation and test, item by item over the whole catalogue.

    Args:
        inputs: the lists, and what is said of them.
        report: told after each split, of users whose shortcut is looked for, and at the end.

    Raises:
        ValueError: lists do not fit the data set, not a row a target or items that it does not have, or are of a scorer
            that `SCORERS` lacks.

    A target that training never saw is in no list, and counts as missed.
    """
    steps, masked = len(_NAMES) + 1, inputs.config.mask_history
    sequences, train_counts = inputs.dataset.sequences, inputs.dataset.sequences.train_counts()
    ranks: dict[Split, dict[str, IntArray]] = {}
    metrics: dict[str, Any] = {}
    for step, (split, name) in enumerate(_NAMES.items(), start=1):
        lists = _with_counts(inputs, split)
        targets, owners = sequences.targets(split), sequences.owners_of(split)
        ranks[split] = {scorer: rank_of_target(found.items_UK, targets) for scorer, found in lists.items()}
        metrics[name] = {}
        for scorer, found in lists.items():
            longest, whole = _reach(inputs, split, scorer, found)
            of_ranks = rank_metrics(ranks[split][scorer], longest, owners, whole=whole)
            metrics[name][scorer] = {**of_ranks, **list_metrics(found, train_counts)}
        report(Progress(step, steps, "step"))
    on_test = ranks[Split.TEST]
    metrics["protocol"] = _protocol(inputs)
    metrics["targets_in_history"] = {name: int(sequences.taken_before(split).sum()) for split, name in _NAMES.items()}
    metrics["validation_tells"] = validation_tells(metrics["validation"])
    metrics["warnings"] = [*remarks(inputs.dataset.profile, metrics), *inputs.remarks]
    metrics["remarks"] = list(inputs.remarks)
    metrics["fusion_weight"] = inputs.fusion_weight
    metrics["recommended"] = inputs.recommended
    metrics["ranker"] = {key: value for key, value in (inputs.ranker or {}).items() if key in _OF_RANKER}
    metrics["fusion_trials"] = [[weight, value] for weight, value in inputs.fusion_trials]
    metrics["comparisons"] = {
        f"{first}_minus_{second}": compare(
            on_test[first], on_test[second], inputs.config.bootstrap_samples, inputs.seed, owners=owners
        )
        for first, second in _pairs(on_test)
    }
    if inputs.recommended and POPULARITY in on_test.keys() - {inputs.recommended}:
        pair = on_test[inputs.recommended], on_test[POPULARITY]
        over = compare(*pair, inputs.config.bootstrap_samples, inputs.seed, ["ndcg_at_10"], owners)["ndcg_at_10"]
        told = no_better_than_popular(inputs.recommended, metrics, over)
        metrics["warnings"] = [*filter(None, [told]), *metrics["warnings"]]
    metrics["slices"] = sliced_recall(on_test, what_is_asked(sequences, masked=masked))
    metrics["shortcut"] = shortcut_metrics(on_test, inputs.dataset, masked=masked, report=report)
    metrics["heuristic"] = dict(inputs.heuristic or {})
    # What a source knows of itself, it knows of all its items, and of each user's last.
    whole = inputs.dataset.new_items is None and sequences.borders is None and sequences.left_out is None
    metrics["reference"] = _reference(inputs.dataset.profile) if whole else {}
    of_new: dict[str, IntArray] = {}
    if inputs.new is not None:
        metrics["new_items"], of_new = new_item_metrics(inputs.new, inputs.dataset, inputs.config)
    report(Progress(steps, steps, "step"))
    return Evaluation(metrics, _ranks_table(inputs, ranks, of_new), lists)


def _pairs(ranks: Mapping[str, IntArray]) -> list[tuple[str, str]]:
    """The scorers to hold against each other; Stage I stands there once where it is the dense score too."""
    same = "dense" in ranks and "aligned" in ranks and np.array_equal(ranks["dense"], ranks["aligned"])
    there = ranks.keys() - ({"dense"} if same else set())
    return [(name, other) for name, row in SCORERS.items() for other in row.compared if {name, other} <= there]


def _length(inputs: EvaluationInputs) -> int:
    return min(inputs.config.list_length, inputs.dataset.sequences.n_items)


def _reach(inputs: EvaluationInputs, split: Split, scorer: str, lists: TopItems) -> tuple[int, bool]:
    """Up to where lists say something, and whether that is as far as they should: those made elsewhere may end early.

    Where nobody's has more items than there are beams, the search ended them.
    """
    length, beams = _length(inputs), inputs.config.beams
    end = inputs.ends.get(split, {}).get(scorer, length)
    if end < length:
        return end, False
    if not (lists.items_UK[:, beams:] >= 0).any():
        length = min(length, beams)
    # Lists that hold a whole catalogue of fewer than 10 items say all there is to say about the first 10.
    return max(length, 10), True


def _with_counts(inputs: EvaluationInputs, split: Split) -> dict[str, TopItems]:
    """The lists of a split, checked and cut to the declared length, and those of interactions alone."""
    sequences, length, masked = inputs.dataset.sequences, _length(inputs), inputs.config.mask_history
    always = measured_always(masked=masked)
    histories, training, found = sequences.histories(split), sequences.training(), {}
    for scorer, lists in inputs.lists.get(split, {}).items():
        if scorer not in SCORERS:
            raise ValueError(f"the scorer {scorer} has no row in SCORERS")
        if lists.n_users != histories.n_users or lists.length < length:
            raise ValueError(
                f"the lists of {scorer} are {lists.n_users} x {lists.length}, "
                f"the data set asks for {histories.n_users} x {length}"
            )
        if lists.items_UK.size and not -1 <= lists.items_UK.min() <= lists.items_UK.max() < sequences.n_items:
            raise ValueError(f"the lists of {scorer} hold items that the data set does not have")
        found[scorer] = TopItems(lists.items_UK[:, :length], lists.scores_UK[:, :length])
    for scorer, row in SCORERS.items():
        if row.counts and (scorer in always or inputs.all_counts):
            found[scorer] = row.lists()(training, histories, length, masked=masked)
    # What another program says of users without a history stays what it is.
    of_others = {scorer: found[scorer] for scorer in inputs.ends.get(split, {})}
    found = {**with_fallback(found, training, histories), **of_others}
    return {scorer: found[scorer] for scorer in SCORERS if scorer in found}


def _protocol(inputs: EvaluationInputs) -> dict[str, Any]:
    ties = inputs.dataset.profile.get("ties", {})
    sequences = inputs.dataset.sequences
    users = {name: len(np.unique(sequences.owners_of(split))) for split, name in _NAMES.items()}
    return {
        **_split(inputs.dataset),
        "level": "item",
        "catalogue": "whole",
        "items": sequences.n_items,
        **{f"{name}_users": count for name, count in users.items()},
        **({"left_out": inputs.dataset.profile["left_out"]} if sequences.left_out is not None else {}),
        "history_masked": inputs.config.mask_history,
        "list_length": _length(inputs),
        "beams": inputs.config.beams,
        "trained_on_validation": not sequences.validates,
        "ties": ties.get("order", "input"),
        "ties_seed": ties.get("seed", 0),
        "seed": inputs.seed,
        "bootstrap_samples": inputs.config.bootstrap_samples,
    }


def _split(dataset: Dataset) -> dict[str, Any]:
    """What a figure depends on of how targets are held back, as it is kept in the protocol."""
    if dataset.sequences.borders is None:
        return {"split": "leave-one-out"}
    about = dataset.split
    return {
        "split": about["kind"].replace("_", " "),
        **{f"{name}_from": about[f"{name}_from"] for name in _NAMES.values()},
        **{f"{name}_targets": about[name]["targets"] for name in _NAMES.values()},
        "targets": about["targets"],
        "unit": about["unit"],
        "unseen": {name: about[name] for name in _NAMES.values()},
    }


def _reference(profile: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Expected metrics that the generated shop knows of itself, by ranking: best, text_only."""
    found: dict[str, dict[str, float]] = {}
    for name, value in profile.get("demo", {}).items():
        for metric in ("recall_at_10", "ndcg_at_10"):
            # Earlier data sets know one that was no bound: ids tell of both sides.
            if name.endswith(f"_{metric}") and not name.startswith("behaviour_only_"):
                found.setdefault(name.removesuffix(f"_{metric}"), {})[metric] = value
    return found


def _ranks_table(
    inputs: EvaluationInputs, ranks: Mapping[Split, Mapping[str, IntArray]], of_new: Mapping[str, IntArray]
) -> pa.Table:
    dataset, sequences = inputs.dataset, inputs.dataset.sequences
    parts = [
        _rank_rows(_NAMES[split], sequences.owners_of(split), sequences.targets(split), found)
        for split, found in ranks.items()
    ]
    if dataset.new_items is not None and of_new:
        parts.append(_rank_rows(NEW_ITEMS, dataset.new_items.users, new_targets(dataset), of_new))
    return pa.concat_tables(parts, promote_options="default").combine_chunks()


def _rank_rows(split: str, users: IntArray, targets: IntArray, ranks: Mapping[str, IntArray]) -> pa.Table:
    columns = {
        "user": users.astype(np.int32),
        "target": targets.astype(np.int32),
        "split": pa.repeat(pa.scalar(split, pa.string()), len(users)),
        **{f"rank_{scorer}": found for scorer, found in ranks.items()},
    }
    return pa.table(columns)
