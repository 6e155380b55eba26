"""Which targets a shortcut finds, and how scorers do on the others. Knows ranks and the walk; knows no models.

The shortcut is one list of ten a user, as every scorer's: the walk over what followed what, without texts and with its
default numbers (`heuristics.transitions`), so that it costs every evaluation little, and nothing is chosen. What it
does not find needs more than the last two items; that is where a model can show what it has learned. Axis: T targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prorec_core.data.dataset import Dataset
from prorec_core.data.sequences import IntArray, Split
from prorec_core.evaluation.heuristics.base import Catalogue
from prorec_core.evaluation.heuristics.transitions import Transitions
from prorec_core.metrics.measures import standard_error
from prorec_core.metrics.measuring import compared, values_by_user
from prorec_core.progress import Report, silent

FIRST = 10
"""Places of the shortcut's list."""
MOST_TARGETS = 25_000
"""Test targets, evenly spaced, that are looked at at most."""


def shortcut_metrics(
    ranks: Mapping[str, IntArray],
    dataset: Dataset,
    *,
    masked: bool,
    report: Report = silent,
) -> dict[str, Any]:
    """How many test targets the shortcut finds, and every scorer's figures on the others.

    Args:
        ranks: by scorer the rank of each test target, shape (T,) each.
        dataset: theirs.
        masked: lists leave out what a user has.
        report: told of users.

    Returns:
        `numbers`, the walk's; `targets`, those looked at, and `of`, all; `found`, how many of these the shortcut has
        within its first ten, and `share`; `rest`: by scorer the metrics that are compared, means over users of their
        means over the targets that it has not, each with its standard error.
    """
    sequences = dataset.sequences
    catalogue, setting = Catalogue(Transitions, sequences.training(), sequences.n_items, None), Transitions.default()
    targets, owners = sequences.targets(Split.TEST), sequences.owners_of(Split.TEST)
    asked = np.unique(np.linspace(0, len(targets) - 1, min(len(targets), MOST_TARGETS)).astype(np.int64))
    histories = sequences.histories(Split.TEST).select(asked)
    (places,) = catalogue.ranks([setting], histories, targets[asked], masked=masked, report=report)
    found = (places > 0) & (places <= FIRST)
    rest = asked[~found]
    return {
        "numbers": setting,
        "targets": len(asked),
        "of": len(targets),
        "found": int(found.sum()),
        "share": round(float(found.mean()), 6) if len(asked) else 0.0,
        "rest": {scorer: _figures(of[rest], owners[rest]) for scorer, of in ranks.items()} if len(rest) else {},
    }


def _figures(ranks: IntArray, owners: IntArray) -> dict[str, float]:
    figures = {}
    for metric in compared():
        values = values_by_user(metric, ranks, owners)
        figures[metric] = round(float(values.mean()), 6)
        figures[f"{metric}_standard_error"] = standard_error(values)
    return figures
