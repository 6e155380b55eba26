"""What a user should know before reading figures, in sentences. Knows counts and metrics; knows no files or screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prorec_core.metrics.scorers import about, label

POPULARITY = "popularity"
NOTHING_CHOSEN = (
    "Validation NDCG@10 is 0 by every score that could recommend, so nothing was chosen by it: all epochs were "
    "trained, the fusion weight λ is the one given that is nearest to 1, and the fused score recommends, or the "
    "model's own where none is fused"
)


def remarks_on_data(profile: Mapping[str, Any], *, mask_history: bool) -> list[str]:
    """Sentences on the data, and on targets that no list can hold.

    Args:
        profile: the data set's.
        mask_history: whether lists leave out what a user already has.
    """
    unreachable = ""
    if mask_history and profile.get("targets_in_history"):
        split, users, left_out = profile.get("split"), profile["kept"]["users"], profile.get("left_out", {})
        targets = {
            name: split[name]["targets"] if split else users - left_out.get(name, 0) for name in ("test", "validation")
        }
        unreachable = out_of_reach(profile["targets_in_history"], targets, _new(profile))
    return [*profile.get("warnings", []), *([unreachable] if unreachable else [])]


def _new(profile: Mapping[str, Any]) -> int:
    """How many targets of the test are of items that the catalogue lacks, some of them in the history, too."""
    split = profile.get("split")
    return int(split["test"]["targets_of_new_items"]) if split else 0


def out_of_reach(taken_before: Mapping[str, int], targets: Mapping[str, int], new: int = 0) -> str:
    """The targets that lists without the history cannot hold; "" where there are none.

    Args:
        taken_before: by split ("test", "validation"), how many targets stand in their user's history too.
        targets: how many there are, likewise.
        new: test targets that no list can hold for another reason; they may be among the former.
    """
    test, validation = taken_before.get("test", 0), taken_before.get("validation", 0)
    tests, validations = targets["test"], targets["validation"]
    if not test and not validation:
        return ""
    reached = "" if new else f": {_share(tests - test, tests)} of the test targets can be reached"
    return (
        f"{_share(test, tests)} of the test targets ({test:,} of {tests:,}) and {_share(validation, validations)} of "
        "the validation targets are in the user's own history and cannot be recommended while evaluate.mask_history is "
        f"true{reached}. Set evaluate.mask_history=false to "
        "recommend again what was taken before, or data.duplicates=first to keep each item once a user"
    )


def validation_tells(measured: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether any scorer that could recommend has found anything on validation.

    Args:
        measured: validation metrics by scorer.
    """
    own = [name for name in measured if about(name).recommends]
    found = [measured[name]["ndcg_at_10"] for name in own or measured]
    return not found or any(found)


def remarks(profile: Mapping[str, Any], metrics: Mapping[str, Any]) -> Sequence[str]:
    """All of them: on the data, on what is out of reach, on what validation could not choose."""
    protocol = metrics["protocol"]
    targets = {name: protocol.get(f"{name}_targets", protocol[f"{name}_users"]) for name in ("test", "validation")}
    unreachable = out_of_reach(metrics["targets_in_history"], targets, _new(profile))
    return [
        *profile.get("warnings", []),
        *([unreachable] if unreachable and protocol["history_masked"] else []),
        *([] if metrics["validation_tells"] else [NOTHING_CHOSEN]),
    ]


def no_better_than_popular(recommended: str, metrics: Mapping[str, Any], difference: Mapping[str, float]) -> str:
    """The warning that nothing is recommended that counts do not know; "" where the test tells otherwise.

    Args:
        recommended: the scorer that recommends.
        metrics: of an evaluation.
        difference: NDCG@10 of that scorer less that of popularity, and its interval, on test.
    """
    if difference["low"] > 0:
        return ""
    own, popular = (metrics["test"][name]["ndcg_at_10"] for name in (recommended, POPULARITY))
    ends = f"{difference['low']:+.4f} to {difference['high']:+.4f}".replace("-", "−")
    return (
        f"What recommends ({label(recommended)}) {'is worse' if difference['high'] < 0 else 'cannot be told'} "
        f"{'than' if difference['high'] < 0 else 'from'} popularity: NDCG@10 on test {own:.4f} and {popular:.4f}, 95% "
        f"interval of the difference {ends}"
    )


def of_seeds(remarks: Mapping[int, Sequence[str]]) -> list[str]:
    """What is to be told of several trainings, each sentence once, and with its seeds where not all have it.

    >>> of_seeds({0: ["a"], 1: ["a", "b"]})
    ['a', 'seed 1: b']
    """
    found: dict[str, list[int]] = {}
    for seed, texts in remarks.items():
        for text in texts:
            found.setdefault(text, []).append(seed)
    return [
        text if len(seeds) == len(remarks) else f"seed {', '.join(map(str, seeds))}: {text}"
        for text, seeds in found.items()
    ]


def _share(part: int, whole: int) -> str:
    share = part / max(whole, 1)
    return f"{share:.1%}" if not part or share >= 0.001 else "less than 0.1%"
