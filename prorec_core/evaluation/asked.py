"""Lists of many users, made part by part by others, in any order, and kept until all are there.

Knows histories, lists and files of finished parts; knows no model, and nothing of who makes a part. The parts are those
of one process, so that the lists are too. Axes: U users, K items of a list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy

from prorec_core.artifacts import sha256_json
from prorec_core.data.sequences import Sequences
from prorec_core.evaluation.lists import joined, more_than_a_part, parts_of
from prorec_core.kept import Making, Open, find_piece, keep_piece
from prorec_core.metrics.top import TopItems
from prorec_core.progress import Progress, Report

_SUFFIX = ".safetensors"
Spread = Callable[[Open], AbstractContextManager[Making]]
"""Has others answer while the context lasts."""
Lists = dict[str, TopItems]
"""By scorer."""


@dataclass(frozen=True)
class Look:
    """Asks for the kind of device that models are on."""


@dataclass(frozen=True)
class Asked:
    """Asks for the lists of each scorer after some histories.

    Attributes:
        histories: a row a target.
        held_out: whether they are those that a ranker was fitted on.
        with_new: whether the catalogue holds the new items too.
        device: the kind of device that they are to be made on; "" for whichever it is.
    """

    histories: Sequences
    held_out: bool = False
    with_new: bool = False
    device: str = ""


def is_worth_sharing(asked: Mapping[str, Asked]) -> bool:
    """Whether there are users for more than one part."""
    return any(more_than_a_part(each.histories) for each in asked.values())


def lists_by_others(
    asked: Mapping[str, Asked], make: Making, folder: Path, report: Report
) -> tuple[dict[str, Lists], str]:
    """The lists for all that is asked, and the kind of device that they were made on.

    Args:
        asked: by names that stay the same when the work is taken up again.
        make: makes parts.
        folder: where finished ones are kept, of this very work: the same models, settings and histories.
        report: told of every part, in users.
    """
    ((_, device),) = make(iter([("", Look())]))
    parts: dict[str, list[Lists | None]] = {}
    places: dict[str, tuple[str, int]] = {}
    total = sum(each.histories.n_users for each in asked.values())
    done = 0

    def take(key: str, found: Lists) -> None:
        nonlocal done
        name, place = places[key]
        parts[name][place] = found
        done += next(iter(found.values())).n_users
        report(Progress(done, total, "user"))

    def missing() -> Iterator[tuple[str, Asked]]:
        for name, each in asked.items():
            parts[name] = []
            for place, histories in enumerate(parts_of(each.histories)):
                about = hashlib.sha256(histories.offsets.tobytes() + histories.items.tobytes()).hexdigest()
                key = sha256_json([name, place, about, device])
                places[key] = name, place
                parts[name].append(None)
                there = find_piece(folder, key, _SUFFIX)
                if there is None:
                    yield key, replace(each, histories=histories, device=device)
                else:
                    take(key, _lists(there.read_bytes()))

    folder.mkdir(parents=True, exist_ok=True)
    for key, found in make(missing()):
        keep_piece(folder, key, _SUFFIX, _content(found))
        take(key, found)
    return {name: joined([part for part in found if part is not None]) for name, found in parts.items()}, device


def _content(lists: Lists) -> bytes:
    tensors = {}
    for place, (scorer, found) in enumerate(lists.items()):
        for what, values in (("items", found.items_UK), ("scores", found.scores_UK)):
            tensors[f"{place:03d}.{scorer}.{what}"] = np.ascontiguousarray(values)
    return bytes(safetensors.numpy.save(tensors))


def _lists(content: bytes) -> Lists:
    tensors = safetensors.numpy.load(content)
    found = {}
    for name in sorted(tensors):
        place, scorer, what = name.split(".")
        if what == "items":
            found[scorer] = TopItems(tensors[name], tensors[f"{place}.{scorer}.scores"])
    return found
