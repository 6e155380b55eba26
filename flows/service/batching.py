"""Requests that wait are answered together, by one thread. Knows a bounded queue; knows nothing of HTTP or files.

No request waits for others to come: the thread takes what is there, and what comes meanwhile waits for its next turn.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prorec.tasks.registry.recommenders import RegisteredVersion

if TYPE_CHECKING:
    from prorec_core.generation.recommender import Recommendation

_log = logging.getLogger(__name__)


class Recommends(Protocol):
    """What the service needs of a `Recommender`."""

    beams: int
    item_ids: list[str]

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int = 10, *, mask_history: bool | None = None
    ) -> list[list[Recommendation]]:
        """The k best items for each history, best first."""
        ...

    def unknown(self, history: Sequence[str]) -> list[str]:
        """The item ids of a history that the catalogue lacks, each once."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A version that is loaded and warm."""

    version: RegisteredVersion
    recommender: Recommends


@dataclass(frozen=True)
class Question:
    """One request: item ids oldest first, items wanted, and whether what was seen may come back (None: as usual)."""

    histories: Sequence[Sequence[str]]
    k: int
    keep_seen: bool | None


@dataclass(frozen=True)
class Found:
    """What one request gets, a list entry a history."""

    version: RegisteredVersion
    lists: Sequence[Sequence[Recommendation]]
    unknown: Sequence[Sequence[str]]


def answer(loaded: Loaded, questions: Sequence[Question]) -> list[Found]:
    """Answer several requests with as few searches as possible; nobody's answer depends on who else asks.

    The best k of a longer list are the list of k, as long as the search has the same beams: only a k beyond
    the usual number of beams widens it.
    """
    model = loaded.recommender
    groups: dict[tuple[bool | None, int], list[int]] = defaultdict(list)
    for index, question in enumerate(questions):
        groups[question.keep_seen, max(question.k, model.beams)].append(index)
    found: dict[int, Found] = {}
    for (keep_seen, _), members in groups.items():
        asked = [questions[index] for index in members]
        histories = [history for question in asked for history in question.histories]
        masked = None if keep_seen is None else not keep_seen
        lists = iter(model.recommend(histories, max(question.k for question in asked), mask_history=masked))
        for index, question in zip(members, asked, strict=True):
            found[index] = Found(
                loaded.version,
                [next(lists)[: question.k] for _ in question.histories],
                [model.unknown(history) for history in question.histories],
            )
    return [found[index] for index in range(len(questions))]


class QueueFullError(Exception):
    """As much is waiting as may."""


class StoppedError(Exception):
    """The service is ending."""


Waiting = tuple[Question, "Future[Found]"]


class Batcher:
    """A queue with one thread that answers what waits, as many requests at once as fit."""

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Sequence[Found]],
        most_waiting: int,
        most_at_once: int,
        observe: Callable[[int, float], None] = lambda histories, seconds: None,
    ) -> None:
        """
        Args:
            answer: answers several requests, in their order.
            most_waiting: histories that may wait.
            most_at_once: histories that are answered together; a single request may hold more.
            observe: told of every batch, in histories and seconds.
        """
        self._answer = answer
        self._most_waiting = most_waiting
        self._most_at_once = most_at_once
        self._observe = observe
        self._queue: deque[Waiting] = deque()
        self._histories = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    @property
    def waiting(self) -> int:
        """Histories that wait."""
        return self._histories

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def submit(self, question: Question) -> Future[Found]:
        """Queue a request.

        Raises:
            QueueFullError: too much is waiting already; an empty queue takes any request.
            StoppedError: `stop` was called.
        """
        size = len(question.histories)
        future: Future[Found] = Future()
        with self._changed:
            if self._stopping:
                raise StoppedError
            if self._queue and self._histories + size > self._most_waiting:
                raise QueueFullError
            self._queue.append((question, future))
            self._histories += size
            self._changed.notify()
        return future

    def stop(self) -> None:
        """Answer what waits, take nothing more, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while batch := self._take():
            # Nobody waits for what was cancelled.
            running = [(question, future) for question, future in batch if future.set_running_or_notify_cancel()]
            if not running:
                continue
            began = time.perf_counter()
            questions = [question for question, _ in running]
            try:
                answers = self._answer(questions)
            except Exception as error:
                _log.exception("%d requests could not be answered", len(running))
                for _, future in running:
                    future.set_exception(error)
                continue
            for (_, future), found in zip(running, answers, strict=True):
                future.set_result(found)
            self._observe(sum(len(question.histories) for question in questions), time.perf_counter() - began)

    def _take(self) -> list[Waiting]:
        """What is answered next; empty at the end."""
        batch: list[Waiting] = []
        size = 0
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            while self._queue and (not batch or size + len(self._queue[0][0].histories) <= self._most_at_once):
                batch.append(self._queue.popleft())
                size += len(batch[-1][0].histories)
            self._histories -= size
        return batch
