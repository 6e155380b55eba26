"""What one evaluation finds more than another, user by user. Knows evaluations; knows nothing of what was trained."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from prorec_core.errors import UserError
from prorec_core.evaluation.comparable import moment_differences, protocol_differences
from prorec_core.evaluation.measured import Evaluation
from prorec_core.metrics.intervals import compare_runs

NAMES = ("this run", "the other")
"""What both are called in messages."""


def expect_same(differ: Sequence[str]) -> None:
    """Refuse to compare where there are differences in what was measured, a phrase each.

    Raises:
        UserError: there are.
    """
    if differ:
        raise UserError(
            f"they were not measured on the same: {'; '.join(differ)}",
            place="other",
            cure="Compare what has the same data, split and rules",
        )


def differences(
    both: tuple[Evaluation, Evaluation],
    scorers: tuple[str | None, str | None],
    split: str,
    samples: int,
    seed: int,
) -> pl.DataFrame:
    """The metrics of two evaluations of the same targets, and what lies between them.

    Args:
        both: the one, and the other.
        scorers: by which of each; None: by which it recommends.
        split: test or validation.
        samples: resamples of users.
        seed: of the resampling.

    Returns:
        One row a metric: metric, this, other, difference, low, high.

    Raises:
        UserError: one is no evaluation, has no such scorer, or they were not measured on the same.
    """
    for each in both:
        if not isinstance(each, Evaluation):
            raise UserError(
                f"nothing can be held against a value of type {type(each).__name__}",
                place="other",
                cure="Give a Run, or what Run.measure gave",
            )
    first, second = (each.metrics["protocol"] for each in both)
    expect_same([*protocol_differences(first, second, NAMES), *moment_differences(first, second, NAMES)])
    one, two = (str(name or each.metrics["recommended"]) for name, each in zip(scorers, both, strict=True))
    found = compare_runs(both[0].ranks, both[1].ranks, (one, two), split, samples, seed)
    own, its = both[0].metrics[split][one], both[1].metrics[split][two]
    return pl.DataFrame([{"metric": name, "this": own[name], "other": its[name], **at} for name, at in found.items()])
