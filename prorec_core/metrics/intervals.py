"""Is one ranking better than another, or is it chance? Knows ranks of the same users' targets; nothing of models.

Paired bootstrap over users (Efron 1979; for information retrieval Sakai 2006): a user's targets stay together, for a
user is drawn with the mean over all of them. Axes: U users, T targets.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prorec_core.data.sequences import IntArray
from prorec_core.errors import UserError, did_you_mean
from prorec_core.metrics.measures import Values
from prorec_core.metrics.measuring import compared, values_by_user

_CELLS = 4_000_000


def paired_bootstrap(
    differences: Values, samples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a mean difference, by drawing users with replacement.

    Drawing U users is drawing how often each distinct difference occurs, which is multinomial; ranks leave few
    distinct differences, so that costs little where there are many users.

    Args:
        differences: one metric of one ranking minus that of the other, for each user, shape (U,), U > 0.
        samples: resamples of all users.
        seed: of the resampling.
        confidence: mass of the interval.

    Returns:
        Its lower and upper end.
    """
    random = np.random.default_rng(seed)
    distinct, counts = np.unique(differences, return_counts=True)
    share = counts / len(differences)
    chunk = max(1, _CELLS // len(distinct))
    means = np.concatenate(
        [
            random.multinomial(len(differences), share, size=min(chunk, samples - start)) @ distinct / len(differences)
            for start in range(0, samples, chunk)
        ]
    )
    outside = (1 - confidence) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)


def difference_of(differences: Values, samples: int = 1000, seed: int = 0) -> dict[str, float]:
    """The mean of some users' differences, and low and high, the ends of its 95% interval (`paired_bootstrap`)."""
    low, high = paired_bootstrap(differences, samples, seed)
    numbers = {"difference": float(differences.mean()), "low": low, "high": high}
    return {name: round(number, 6) for name, number in numbers.items()}


def compare(
    first: IntArray,
    second: IntArray,
    samples: int = 1000,
    seed: int = 0,
    metrics: Iterable[str] | None = None,
    owners: IntArray | None = None,
) -> dict[str, dict[str, float]]:
    """Compare two rankings of the same users' targets.

    Args:
        first: rank of each target, 0 where it is not in the list, shape (T,).
        second: the same of the other ranking, targets in the same order.
        samples: resamples.
        seed: of the resampling.
        metrics: names as in `values_by_user`; by default those that are compared.
        owners: whose each target is (`user_means`).

    Returns:
        By metric: difference (first minus second), and low and high, the ends of its 95% interval.

    Raises:
        ValueError: the rankings are of different numbers of targets, or of none.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"rankings of {len(first)} and {len(second)} targets cannot be compared")
    found = {}
    for metric in metrics or compared():
        differences = values_by_user(metric, first, owners) - values_by_user(metric, second, owners)
        found[metric] = difference_of(differences, samples, seed)
    return found


def compare_runs(
    first: pa.Table,
    second: pa.Table,
    scorers: tuple[str, str] = ("fused", "fused"),
    split: str = "test",
    samples: int = 1000,
    seed: int = 0,
    metrics: Iterable[str] | None = None,
) -> dict[str, dict[str, float]]:
    """Compare a scorer of one run with one of another, from the two runs' ranks.parquet.

    Args:
        first: columns user, target, split and rank_<scorer>.
        second: the same of the other run.
        scorers: which scorer of each.
        split: "test" or "validation".

    Raises:
        UserError: a run lacks the scorer, or the two are not about the same users and targets.
    """
    ranks = []
    parts = [_by_user(table.filter(pc.equal(table["split"], split))) for table in (first, second)]
    for part, scorer in zip(parts, scorers, strict=True):
        known = [name.removeprefix("rank_") for name in part.column_names if name.startswith("rank_")]
        if scorer not in known:
            raise UserError(f"the run has no ranks of the scorer '{scorer}'", cure=did_you_mean(scorer, known))
        ranks.append(part[f"rank_{scorer}"].to_numpy())
    if not all(parts[0][name].equals(parts[1][name]) for name in ("user", "target")) or not len(parts[0]):
        raise UserError(
            f"the two runs do not rank the same {split} targets of the same users",
            place="targets",
            cure="Compare runs of one data set with one order of ties",
        )
    return compare(ranks[0], ranks[1], samples, seed, metrics, parts[0]["user"].to_numpy())


def _by_user(rows: pa.Table) -> pa.Table:
    """Rows in order of users; those of one user stay as they are."""
    return rows.take(np.argsort(rows["user"].to_numpy(), kind="stable"))
