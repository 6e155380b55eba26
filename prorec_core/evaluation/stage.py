"""Stage `evaluate`: every scorer's lists measured against the held-back items, compared and reported.

Knows lists, data and settings; knows nothing of the models behind the lists. Axes: U users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prorec_core.artifacts import read_json, read_parquet, write_bytes, write_json, write_parquet
from prorec_core.data.sequences import IntArray, Split
from prorec_core.evaluation.comparison import compare
from prorec_core.evaluation.inputs import EvaluationInputs, in_order
from prorec_core.evaluation.metrics import CUTOFFS, list_metrics, rank_metrics
from prorec_core.evaluation.new_items import new_item_metrics, new_targets
from prorec_core.evaluation.ranking import TopItems, popularity_lists, rank_of_target
from prorec_core.evaluation.report import plot_files, render
from prorec_core.evaluation.slices import sliced_recall
from prorec_core.progress import Progress, Report, silent

__all__ = ["Evaluation", "EvaluationInputs", "evaluate", "standalone_plots"]

_STAGE = "evaluate"
_NAMES = {Split.VALIDATION: "validation", Split.TEST: "test"}
_NEW = "new_items"
_OF_RANKER = ("features", "weights", "standardised", "ndcg_at_10", "without", "numbers")
_COMPARED = (
    ("ranked", "fused"),
    ("ranked", "generative"),
    ("ranked", "aligned"),
    ("ranked", "collaborative"),
    ("ranked", "two_stream"),
    ("fused", "dense"),
    ("fused", "generative"),
    ("fused", "aligned"),
    ("generative", "dense"),
    ("generative", "aligned"),
    ("dense", "aligned"),
)


@dataclass(frozen=True)
class Evaluation:
    """What the stage leaves.

    Attributes:
        metrics: `protocol`; `test` and `validation`: metrics by scorer; `fusion_weight`, `fusion_trials`,
            `ranker` (its `features` and `weights`, what `fit_ranker` told of it, and of a baseline's the `numbers` that
            it ranks by) and `recommended`, the scorer that recommends; `comparisons`: differences of test metrics with
            95% intervals; `slices`: test Recall@10 of groups of users; `reference`: what is known of the data by
            construction, if anything; `new_items`, where some are held out: as `new_item_metrics` gives them.
        ranks: a row for each split and user: user int32, target int32, split, rank_<scorer> int32 each, from 1,
            0 where the target is not in the list. Where items are held out as new ones, the split "new_items" has a
            row for each user who took one last, whose target counts on after the other items.
        report_html: the report, a page that needs nothing else.
    """

    metrics: dict[str, Any]
    ranks: pa.Table
    report_html: str

    @property
    def test_ranks(self) -> dict[str, IntArray]:
        """The test users' ranks by scorer, int32, shape (U,) each."""
        return self._ranks_of("test")

    @property
    def new_item_ranks(self) -> dict[str, IntArray]:
        """The same of the users who took a new item last, as `new_item_metrics` gives them; {} where there are none."""
        return self._ranks_of(_NEW) if "new_items" in self.metrics else {}

    def _ranks_of(self, split: str) -> dict[str, IntArray]:
        rows = self.ranks.filter(pc.equal(self.ranks["split"], split))
        names = [name.removeprefix("rank_") for name in rows.column_names if name.startswith("rank_")]
        return {name: rows[f"rank_{name}"].to_numpy() for name in names}

    def save(self, folder: Path) -> None:
        """Write metrics.json, ranks.parquet and report.html."""
        write_json(folder / "metrics.json", self.metrics)
        write_parquet(folder / "ranks.parquet", self.ranks, _STAGE)
        write_bytes(folder / "report.html", self.report_html.encode())

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            UserError: the ranks were written by an incompatible version of this software.
        """
        ranks = read_parquet(folder / "ranks.parquet", _STAGE).replace_schema_metadata(None)
        return cls(read_json(folder / "metrics.json"), ranks, (folder / "report.html").read_text(encoding="utf-8"))


def evaluate(inputs: EvaluationInputs, report: Report = silent) -> Evaluation:
    """Measure every scorer on validation and test, item by item over the whole catalogue.

    Args:
        inputs: the lists, and all that the report shows beside them.
        report: told after each split, after the comparisons and after the report.

    Raises:
        ValueError: lists do not fit the data set: not a row a user, or items that it does not have.
    """
    steps = len(_NAMES) + 2
    sequences, train_counts = inputs.dataset.sequences, inputs.dataset.sequences.train_counts()
    ranks: dict[Split, dict[str, IntArray]] = {}
    metrics: dict[str, Any] = {}
    for step, (split, name) in enumerate(_NAMES.items(), start=1):
        lists = _with_popularity(inputs, split)
        ranks[split] = {
            scorer: rank_of_target(found.items_UK, sequences.targets(split)) for scorer, found in lists.items()
        }
        # Lists that hold a whole catalogue of fewer than 10 items say all there is to say about the first 10.
        cutoffs = [k for k in CUTOFFS if k <= max(_length(inputs), 10)]
        metrics[name] = {
            scorer: {**rank_metrics(ranks[split][scorer], cutoffs), **list_metrics(found, train_counts)}
            for scorer, found in lists.items()
        }
        report(Progress(step, steps, "step"))
    on_test = ranks[Split.TEST]
    metrics["protocol"] = _protocol(inputs)
    metrics["fusion_weight"] = inputs.fusion_weight
    metrics["recommended"] = inputs.recommended
    metrics["ranker"] = {key: value for key, value in (inputs.ranker or {}).items() if key in _OF_RANKER}
    metrics["fusion_trials"] = [[weight, value] for weight, value in inputs.fusion_trials]
    metrics["comparisons"] = {
        f"{first}_minus_{second}": compare(
            on_test[first], on_test[second], inputs.config.bootstrap_samples, inputs.seed
        )
        for first, second in _pairs(on_test)
    }
    metrics["slices"] = sliced_recall(
        on_test, sequences.targets(Split.TEST), np.diff(sequences.histories(Split.TEST).offsets), train_counts
    )
    # What a source knows of itself, it knows of all its items.
    metrics["reference"] = {} if inputs.dataset.cold is not None else _reference(inputs.dataset.profile)
    of_new: dict[str, IntArray] = {}
    if inputs.new is not None:
        metrics["new_items"], of_new = new_item_metrics(inputs.new, inputs.dataset, inputs.config)
    report(Progress(steps - 1, steps, "step"))
    page = render(inputs, metrics, on_test)
    report(Progress(steps, steps, "step"))
    return Evaluation(metrics, _ranks_table(inputs, ranks, of_new), page)


def standalone_plots(inputs: EvaluationInputs, evaluation: Evaluation) -> dict[str, bytes]:
    """The plots of the report as PNG files: content by file name."""
    return plot_files(inputs, evaluation.metrics, evaluation.test_ranks)


def _pairs(ranks: Mapping[str, IntArray]) -> list[tuple[str, str]]:
    """The scorers to hold against each other; Stage I stands there once where it is the dense score too."""
    same = "dense" in ranks and "aligned" in ranks and np.array_equal(ranks["dense"], ranks["aligned"])
    left_out = {"dense"} if same else set()
    return [pair for pair in _COMPARED if set(pair) <= ranks.keys() - left_out]


def _length(inputs: EvaluationInputs) -> int:
    return min(inputs.config.list_length, inputs.dataset.sequences.n_items)


def _with_popularity(inputs: EvaluationInputs, split: Split) -> dict[str, TopItems]:
    """The lists of a split, checked and cut to the declared length, and those of the popularity baseline."""
    sequences, length = inputs.dataset.sequences, _length(inputs)
    found = {}
    for scorer, lists in inputs.lists[split].items():
        if lists.n_users != sequences.n_users or lists.length < length:
            raise ValueError(
                f"the lists of {scorer} are {lists.n_users} x {lists.length}, "
                f"the data set asks for {sequences.n_users} x {length}"
            )
        if lists.items_UK.size and not -1 <= lists.items_UK.min() <= lists.items_UK.max() < sequences.n_items:
            raise ValueError(f"the lists of {scorer} hold items that the data set does not have")
        found[scorer] = TopItems(lists.items_UK[:, :length], lists.scores_UK[:, :length])
    found["popularity"] = popularity_lists(
        sequences.train_counts(), sequences.histories(split), length, inputs.config.mask_history
    )
    return {scorer: found[scorer] for scorer in in_order(found)}


def _protocol(inputs: EvaluationInputs) -> dict[str, Any]:
    ties = inputs.dataset.profile.get("ties", {})
    n_users = inputs.dataset.sequences.n_users
    return {
        "split": "leave-one-out",
        "level": "item",
        "catalogue": "whole",
        "items": inputs.dataset.sequences.n_items,
        "validation_users": n_users,
        "test_users": n_users,
        "history_masked": inputs.config.mask_history,
        "list_length": _length(inputs),
        "beams": inputs.config.beams,
        "trained_on_validation": not inputs.dataset.sequences.validates,
        "ties": ties.get("order", "input"),
        "ties_seed": ties.get("seed", 0),
        "seed": inputs.seed,
        "bootstrap_samples": inputs.config.bootstrap_samples,
    }


def _reference(profile: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Expected metrics that the generated shop knows of itself, by ranking: best, text_only, behaviour_only."""
    found: dict[str, dict[str, float]] = {}
    for name, value in profile.get("demo", {}).items():
        for metric in ("recall_at_10", "ndcg_at_10"):
            if name.endswith(f"_{metric}"):
                found.setdefault(name.removesuffix(f"_{metric}"), {})[metric] = value
    return found


def _ranks_table(
    inputs: EvaluationInputs, ranks: Mapping[Split, Mapping[str, IntArray]], of_new: Mapping[str, IntArray]
) -> pa.Table:
    dataset = inputs.dataset
    everyone = np.arange(dataset.sequences.n_users, dtype=np.int32)
    parts = [
        _rank_rows(_NAMES[split], everyone, dataset.sequences.targets(split), found) for split, found in ranks.items()
    ]
    if dataset.cold is not None and of_new:
        parts.append(_rank_rows(_NEW, dataset.cold.users, new_targets(dataset), of_new))
    return pa.concat_tables(parts, promote_options="default").combine_chunks()


def _rank_rows(split: str, users: IntArray, targets: IntArray, ranks: Mapping[str, IntArray]) -> pa.Table:
    columns = {
        "user": users.astype(np.int32),
        "target": targets.astype(np.int32),
        "split": pa.array([split] * len(users), pa.string()),
        **{f"rank_{scorer}": found for scorer, found in ranks.items()},
    }
    return pa.table(columns)
