"""Variants of an experiment side by side: means over seeds, spread, and intervals against one of them.

Knows metrics, ranks and costs of evaluations of the same users; knows nothing of models, files or pages.

The unit of the bootstrap is the user. A user's value is the mean over that user's targets and over the seeds that both
variants have, so the
interval says what other users of the same kind would show for the average of these trainings; what another seed
would show is the spread that stands beside it. Axes: U users, T targets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.evaluation.marks import APART, MIXED, NOTHING_LEFT
from prorec_core.evaluation.remarks import of_seeds
from prorec_core.evaluation.slices import sliced, what_is_asked
from prorec_core.metrics.intervals import difference_of
from prorec_core.metrics.measures import Values
from prorec_core.metrics.measuring import compared, values_by_user
from prorec_core.metrics.scorers import GENERATOR, GIVEN, SCORERS, in_order, ranked_baselines
from prorec_core.metrics.table import columns

_NOT_RANKED = (
    "no ranker could be fitted, since no validation target is among what is found: these are the lists themselves"
)
_DOMINATION = ("overlap_semantic", "overlap_collaborative", "cka_semantic", "cka_collaborative", "text_share")


@dataclass(frozen=True)
class Measured:
    """One variant with one seed.

    Attributes:
        variant: its name.
        seed: of its training.
        scorer: the scorer that represents it, or GENERATOR, or one of `ranked_baselines`.
        metrics: as in metrics.json: `protocol`, and by split, scorer and metric.
        ranks: by scorer the rank of each test target, int32, shape (T,), 0 where it is not in the list.
        new_item_ranks: the same of the users who took a new item last; empty where none was measured.
        seconds: what each stage took when it was made, by the id of the run that made it.
        parameters: numbers that recommending needs.
        quality: of the codes, as in quality.json; empty where there are none.
        domination: of the quantized embedding, a row of domination.json; empty where there is none.
        run: where it can be looked at: `run_id`, and `page` or None.
        not_applied: options of its generator that are on and had no ground, with the reason.
        made_with: kinds of device and number formats of its trainings, in words.
        owners: whose each test target is; None: each is another user's.
        new_item_owners: the same of those that are new items.
    """

    variant: str
    seed: int
    scorer: str
    metrics: Mapping[str, Any]
    ranks: Mapping[str, IntArray]
    seconds: Mapping[str, float]
    parameters: int
    quality: Mapping[str, Any] = field(default_factory=dict)
    domination: Mapping[str, float] = field(default_factory=dict)
    run: Mapping[str, str | None] = field(default_factory=dict)
    not_applied: Sequence[str] = ()
    new_item_ranks: Mapping[str, IntArray] = field(default_factory=dict)
    made_with: frozenset[str] = frozenset()
    owners: IntArray | None = None
    new_item_owners: IntArray | None = None

    @property
    def apart(self) -> bool:
        """Whether it trained on the validation items too, which makes it another test than the others'."""
        return bool(self.metrics["protocol"].get("trained_on_validation"))

    @property
    def representative(self) -> str:
        """The scorer that stands for the variant; a baseline itself where no ranker could be fitted over it."""
        if own := ranked_baselines().get(self.scorer):
            return "ranked" if "ranked" in self.metrics["test"] else own
        if self.scorer != GENERATOR:
            return self.scorer
        return str(self.metrics["recommended"])


def compare_variants(
    measured: Sequence[Measured],
    reference: str,
    sequences: Sequences,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is said about some variants, as plain JSON values.

    Args:
        measured: the variants in the order in which they are to be shown, each with any number of seeds.
        reference: the variant that the others are held against; without it nothing is.
        sequences: the data that all of them were evaluated on.
        samples: resamples of users.
        seed: of the resampling.

    Returns:
        `protocol`; `seeds`; `reference`; `order`: the variants' names, those trained on the validation items last;
        `variants`: by name its scorer, seeds, apart (trained on the validation items: held against others of that
        kind alone, and without validation), made_with, marks (keys of MARKS), test, validation, by_seed, against,
        scorers, codes, domination, chosen (by a heuristic), not_applied, remarks (on its lists), cost, runs and
        new_items; `slices`: as of `sliced_recall`, by variant, with `against`: by variant the difference of a group's
        users to the reference; `new_items`: what new items were measured on, empty where none were held out.

    Raises:
        ValueError: there is nothing to compare, or ranks are not those of these users.
    """
    if not measured:
        raise ValueError("there is nothing to compare")
    n_targets = len(sequences.targets(Split.TEST))
    for each in measured:
        if any(len(ranks) != n_targets for ranks in each.ranks.values()):
            raise ValueError(f"the ranks of {each.variant} are not those of {n_targets} targets")
    parts: dict[str, list[Measured]] = {}
    for each in sorted(measured, key=lambda each: each.apart):
        parts.setdefault(each.variant, []).append(each)
    own = own_seconds(each for name in parts for each in parts[name])
    kinds = Counter(kind for each in measured for kind in each.made_with)
    usual = kinds.most_common(1)[0][0] if kinds else ""
    variants: dict[str, Any] = {}
    for name, seeds in parts.items():
        scorer, apart = representative(seeds), seeds[0].apart
        others = parts.get(reference, [])
        held_against = others if name != reference and others and others[0].apart == apart else []
        variants[name] = {
            "scorer": scorer,
            "seeds": [each.seed for each in seeds],
            "apart": apart,
            "made_with": sorted(made_with := {kind for each in seeds for kind in each.made_with}),
            "marks": [
                *([APART] if apart else []),
                *([MIXED] if made_with - {usual} else []),
                *([NOTHING_LEFT] if SCORERS[scorer].again and _masked(seeds) else []),
            ],
            "test": _over_seeds([each.metrics["test"][scorer] for each in seeds]),
            "validation": {} if apart else _over_seeds([each.metrics["validation"][scorer] for each in seeds]),
            "by_seed": {
                metric: [each.metrics["test"][scorer][metric] for each in seeds]
                for metric in columns("page")
                if all(metric in each.metrics["test"][scorer] for each in seeds)
            },
            "against": _against(seeds, held_against, (scorer, representative(others)), samples, seed)
            if held_against
            else {},
            "scorers": _scorers(seeds, held_against, samples, seed),
            "codes": _mean([_codes(each.quality) for each in seeds if each.quality]),
            "new_items": _new_items(seeds, held_against, samples, seed),
            "domination": _mean(
                [{key: each.domination[key] for key in _DOMINATION} for each in seeds if each.domination]
            ),
            "cost": _mean(
                [
                    {
                        "seconds": sum(each.seconds.values()),
                        "own_seconds": own[each.variant, each.seed],
                        "parameters": each.parameters,
                    }
                    for each in seeds
                    if scorer != GIVEN
                ]
            ),
            "chosen": _chosen(seeds),
            "not_applied": list(dict.fromkeys(text for each in seeds for text in each.not_applied)),
            "remarks": [
                *([_NOT_RANKED] if scorer != "ranked" and seeds[0].scorer in ranked_baselines() else []),
                *of_seeds({each.seed: each.metrics.get("remarks", ()) for each in seeds}),
            ],
            "runs": [{"seed": each.seed, **each.run} for each in seeds],
        }
    # Over other seeds a group's difference would be one of seeds too.
    seeds_of = {name: {each.seed for each in seeds} for name, seeds in parts.items()}
    hits = {name: _mean_values("recall_at_10", seeds, representative(seeds)) for name, seeds in parts.items()}
    return {
        # What all have in common.
        "protocol": {
            key: value
            for key, value in measured[0].metrics["protocol"].items()
            if key != "seed" and all(each.metrics["protocol"].get(key) == value for each in measured)
        },
        "seeds": sorted({each.seed for each in measured}),
        "reference": reference,
        "order": list(parts),
        "bootstrap_samples": samples,
        "variants": variants,
        "new_items": _about_new_items([each.metrics["new_items"] for each in measured if "new_items" in each.metrics]),
        "slices": sliced(
            hits,
            what_is_asked(sequences, masked=bool(measured[0].metrics["protocol"]["history_masked"])),
            lambda by_user: {
                name: difference_of(by_user[name] - by_user[reference], samples, seed)
                for name, about in variants.items()
                if about["against"] and seeds_of[name] == seeds_of[reference]
            },
        ),
    }


def _masked(seeds: Sequence[Measured]) -> bool:
    """Whether what a user has was left out."""
    return all(each.metrics.get("protocol", {}).get("history_masked", False) for each in seeds)


def representative(seeds: Sequence[Measured]) -> str:
    """The scorer that stands for a variant: where seeds differ in theirs, the better one on validation in the mean."""
    names = sorted({each.representative for each in seeds})
    if len(names) == 1:
        return names[0]
    # With a seed for which no ranker could be fitted there is nothing ranked.
    names = [name for name in names if all(name in each.metrics["test"] for each in seeds)]
    return max(
        names, key=lambda name: float(np.mean([each.metrics["validation"][name]["ndcg_at_10"] for each in seeds]))
    )


def own_seconds(measured: Iterable[Measured]) -> dict[tuple[str, int], float]:
    """By variant and seed the seconds of those stages that no variant before it in the list needed with that seed."""
    seen: dict[int, set[str]] = {}
    found = {}
    for each in measured:
        known = seen.setdefault(each.seed, set())
        found[each.variant, each.seed] = sum(value for run, value in each.seconds.items() if run not in known)
        known |= set(each.seconds)
    return found


def _over_seeds(measured: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """By metric that all have its mean over seeds, and the standard deviation between them (None for one seed)."""
    found: dict[str, dict[str, float | None]] = {}
    for metric in columns("page"):
        if values := [each[metric] for each in measured if all(metric in other for other in measured)]:
            deviation = round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else None
            found[metric] = {"mean": round(float(np.mean(values)), 6), "deviation": deviation}
    return found


def _same_for_all() -> set[str]:
    """Scorers that every variant has with the same figures."""
    return {name for name, row in SCORERS.items() if row.everywhere or row.again}


def _chosen(seeds: Sequence[Measured]) -> dict[str, float]:
    """The numbers of a heuristic that validation chose; {} for what is none. They are the same with every seed."""
    found = seeds[0].metrics.get("heuristic", {})
    return dict(found["chosen"]) if found.get("trials") else {}


def _scorers(seeds: Sequence[Measured], reference: Sequence[Measured], samples: int, seed: int) -> dict[str, Any]:
    """Every scorer of a variant; held against the same scorer of the reference, where that has it."""
    names = set.intersection(*(set(each.metrics["test"]) for each in seeds))
    shown = in_order(
        dict.fromkeys(names - _same_for_all() if seeds[0].scorer == GENERATOR else {representative(seeds)})
    )
    found = {}
    for name in shown:
        comparable = reference and all(name in each.ranks for each in reference)
        found[name] = {
            "test": _over_seeds([each.metrics["test"][name] for each in seeds]),
            "against": _against(seeds, reference, (name, name), samples, seed) if comparable else {},
        }
    return found


def _about_new_items(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What new items were measured on; a bonus that only some variants have stands with what they set."""
    if not measured:
        return {}
    bonuses = {each["bonus"] for each in measured}
    about = {key: measured[0][key] for key in ("items", "interactions", "share_of_catalogue")}
    if measured[0].get("by_time"):
        about["by_time"] = True
    return {**about, "bonus": bonuses.pop() if len(bonuses) == 1 else 0.0}


def _new_items(seeds: Sequence[Measured], reference: Sequence[Measured], samples: int, seed: int) -> dict[str, Any]:
    """New items by the scorer that stands for a variant, and by its generator alone: recall of new and other items.

    Each scorer is held against what stands for the reference, or the generator alone against that of the reference.
    """
    if not all(each.new_item_ranks for each in seeds):
        return {}
    stands = representative(seeds)
    found = {}
    for name in dict.fromkeys((stands, *({"generative"} & seeds[0].new_item_ranks.keys()))):
        other = name if name != stands or not reference else representative(reference)
        comparable = reference and all(other in each.new_item_ranks for each in reference)
        of = [each.metrics["new_items"] for each in seeds]
        found[name] = {
            **{group: _over_seeds([each[group][name] for each in of]) for group in ("new", "known")},
            "standard_error": round(
                float(np.mean([each["new"][name]["recall_at_10_standard_error"] for each in of])), 6
            ),
            "share_at_10": round(float(np.mean([each["share_at_10"][name] for each in of])), 6),
            "against": _against(seeds, reference, (name, other), samples, seed, of_new=True) if comparable else {},
        }
    return found


def _against(
    first: Sequence[Measured],
    second: Sequence[Measured],
    scorers: tuple[str, str],
    samples: int,
    seed: int,
    *,
    of_new: bool = False,
) -> dict[str, dict[str, float]]:
    """Difference of two variants by metric with its interval, over the seeds that both have; {} if there are none.

    It is that of all test users, or of those who took a new item last (`of_new`).
    """
    both = {each.seed for each in first} & {each.seed for each in second}
    if not both:
        return {}
    sides = [[each for each in side if each.seed in both] for side in (first, second)]
    found = {}
    for metric in compared():
        values = [
            {
                each.seed: values_by_user(
                    metric,
                    (each.new_item_ranks if of_new else each.ranks)[scorer],
                    each.new_item_owners if of_new else each.owners,
                )
                for each in side
            }
            for side, scorer in zip(sides, scorers, strict=True)
        ]
        differences = np.subtract(*(np.mean(list(of_side.values()), axis=0) for of_side in values))
        by_seed = [{each: float(found_by_user.mean()) for each, found_by_user in side.items()} for side in values]
        found[metric] = {
            **difference_of(differences, samples, seed),
            "seeds": len(both),
            "seeds_above": sum(by_seed[0][each] > by_seed[1][each] for each in both),
        }
    return found


def _mean_values(metric: str, seeds: Sequence[Measured], scorer: str) -> Values:
    """Each target's value of a metric, the mean over seeds, shape (T,)."""
    total: Values = np.mean([values_by_user(metric, each.ranks[scorer]) for each in seeds], axis=0)
    return total


def _codes(quality: Mapping[str, Any]) -> dict[str, float]:
    """The quality of a code table in a few figures; levels are averaged, the suffix left out."""
    levels = [level for level in quality["levels"] if not level["suffix"]]
    before = quality["collisions"]["before"]
    return {
        "levels": len(levels),
        "codes": float(np.mean([level["codes"] for level in levels])),
        "used_share": float(np.mean([level["used_share"] for level in levels])),
        "entropy": float(np.mean([level["entropy"] for level in levels])),
        "perplexity": float(np.mean([level["perplexity"] for level in levels])),
        "collision_share": before["share"],
        "tuples": before["tuples"],
        "largest_group": before["largest_group"],
        "relative_error": quality["relative_error"],
    }


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: round(float(np.mean([row[key] for row in rows])), 6) for key in rows[0]} if rows else {}


def quantized_domination(domination: Mapping[str, Any], embedding: str) -> dict[str, float]:
    """The row of domination.json that is about the embedding that was quantized.

    The two sources share all neighbours with themselves, and with each other what `sources` says.
    """
    if embedding in {"semantic", "collaborative"}:
        other = "collaborative" if embedding == "semantic" else "semantic"
        overlap, cka = domination["sources"]["overlap"], domination["sources"]["cka"]
        of_text = 1.0 if embedding == "semantic" else overlap
        return {
            f"overlap_{embedding}": 1.0,
            f"overlap_{other}": overlap,
            f"cka_{embedding}": 1.0,
            f"cka_{other}": cka,
            "text_share": round(of_text / (1.0 + overlap), 6),
        }
    return dict(domination["integrated" if embedding == "integrated" else "naive_concatenation"])
