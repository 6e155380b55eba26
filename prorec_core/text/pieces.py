"""Texts to vectors piece by piece: each piece some batches, made in any order by whoever, kept until all are there.

Knows texts, batches and files; knows no encoder, and nothing of who makes a piece. Which texts stand in a batch
together decides the last bits of their vectors, since a batch is padded to its longest: batches are cut here, once,
from all the texts, and whoever makes a piece is given them as they are. Axes: T texts, S dimensions.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.artifacts import sha256_json
from prorec_core.kept import Making, Open, find_piece, keep_piece
from prorec_core.progress import Progress, Report

FloatArray = npt.NDArray[np.float32]
_TOKENS_A_PIECE = 2**15
"""Seconds of work for a core, or one batch of a GPU."""
_TEXTS_TO_COUNT = 50_000
_SUFFIX = ".npy"


@dataclass(frozen=True)
class About:
    """How whoever makes pieces computes; two that say the same make the same.

    Attributes:
        device: its kind: cpu, cuda, …
        number_format: in which it multiplies.
        tokens: that a batch best has, padding included.
        width: of a vector, S.
    """

    device: str
    number_format: str
    tokens: int
    width: int


@dataclass(frozen=True)
class Look:
    """Asks for `About`."""


@dataclass(frozen=True)
class Count:
    """Asks for the tokens of each text, int64, shape (T,)."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Embed:
    """Asks for the vectors of batches of texts, one after the other, float32, shape (T, S), by one that is as told."""

    batches: Sequence[Sequence[str]]
    about: About


Ask = Look | Count | Embed
Spread = Callable[[Open], AbstractContextManager[Making]]
"""Has others answer while the context lasts."""


@dataclass
class Ways:
    """How a long encoding goes about it.

    Attributes:
        folder: where finished pieces are kept; None: nowhere.
        spread: has others make the pieces; None: this process does.
        made_with: filled with the kind of device and the number format.
    """

    folder: Path | None = None
    spread: Spread | None = None
    made_with: dict[str, str] = field(default_factory=dict)


def vectors_of(
    texts: Sequence[str], most: int, encoder: Sequence[str | int], make: Making, ways: Ways, report: Report
) -> FloatArray:
    """Vectors of distinct texts, shape (T, S): texts of about equal length in a batch.

    Args:
        texts: distinct, in an order that does not depend on who asks.
        most: texts that a batch has at most.
        encoder: what tells it from others, by content.
        make: makes pieces.
        ways: where they are kept.
        report: told of every piece, in texts.
    """
    about: About = _answer(make, Look())
    ways.made_with.update(device=about.device, number_format=about.number_format)
    lengths_T = _lengths(texts, make)
    order = np.argsort(lengths_T, kind="stable")
    vectors_TS = np.zeros((len(texts), about.width), np.float32)
    rows_of: dict[str, npt.NDArray[np.int64]] = {}
    done = 0

    def take(key: str, found: FloatArray) -> None:
        nonlocal done
        vectors_TS[rows_of[key]] = found
        done += len(found)
        report(Progress(done, len(texts), "text"))

    def missing() -> Iterator[tuple[str, Embed]]:
        for cuts in _pieces(lengths_T[order], about.tokens, most):
            wanted = Embed([[texts[row] for row in order[cut]] for cut in cuts], about)
            key = sha256_json([*encoder, asdict(about), wanted.batches])
            rows_of[key] = order[cuts[0].start : cuts[-1].stop]
            there = None if ways.folder is None else find_piece(ways.folder, key, _SUFFIX)
            if there is None:
                yield key, wanted
            else:
                take(key, np.load(there, allow_pickle=False))

    if ways.folder is not None:
        ways.folder.mkdir(parents=True, exist_ok=True)
    for key, found in make(missing()):
        if ways.folder is not None:
            keep_piece(ways.folder, key, _SUFFIX, _content(found))
        take(key, found)
    return vectors_TS


def batches(lengths: npt.NDArray[np.int64], budget: int, most: int) -> Iterator[slice]:
    """Cut texts, sorted by length, into runs that are at most `most` long and, padded, hold at most `budget` tokens.

    A text longer than the budget is a batch of its own.
    """
    start = 0
    for end in range(1, len(lengths) + 1):
        full = end == len(lengths) or (end + 1 - start) * lengths[end] > budget or end - start == most
        if full:
            yield slice(start, end)
            start = end


def _pieces(lengths: npt.NDArray[np.int64], budget: int, most: int) -> Iterator[list[slice]]:
    """Runs of batches with about as many tokens each."""
    piece: list[slice] = []
    tokens = 0
    for cut in batches(lengths, budget, most):
        piece.append(cut)
        tokens += (cut.stop - cut.start) * int(lengths[cut.stop - 1])
        if tokens >= _TOKENS_A_PIECE:
            yield piece
            piece, tokens = [], 0
    if piece:
        yield piece


def _lengths(texts: Sequence[str], make: Making) -> npt.NDArray[np.int64]:
    starts = range(0, len(texts), _TEXTS_TO_COUNT)
    found = dict(make((str(start), Count(texts[start : start + _TEXTS_TO_COUNT])) for start in starts))
    return np.concatenate([np.zeros(0, np.int64), *(found[str(start)] for start in starts)])


def _answer(make: Making, ask: Ask) -> Any:
    ((_, found),) = make(iter([("", ask)]))
    return found


def _content(vectors_TS: FloatArray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, vectors_TS, allow_pickle=False)
    return stream.getvalue()
