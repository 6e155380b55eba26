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
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec.flows.service.exploring import Explored
    from prorec.flows.service.schemas import Why
    from prorec_core.generation.allowed import Rules
    from prorec_core.generation.recommender import Recommendation
    from prorec_core.generation.rule_book import Left, RuleBook
    from prorec_core.generation.rules import Rule

_log = logging.getLogger(__name__)


class Recommends(Protocol):
    """What the service needs of a `Recommender`."""

    item_ids: list[str]

    @property
    def rules(self) -> RuleBook:
        """What rules leave of the catalogue."""
        ...

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        mask_history: bool | None = None,
        rules: Rules | None = None,
    ) -> list[list[Recommendation]]:
        """The k best items for each history, best first, of those that its rule leaves."""
        ...

    def looks_at(self, k: int) -> tuple[int, int]:
        """How far it looks for a list of k items: where that is the same, so are the first items of both lists."""
        ...

    def masks(self, mask_history: bool | None) -> bool:
        """Whether what a history has is left out, where that is said, and where it is not (None)."""
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
    """One request: item ids oldest first, items wanted, whether what was seen may come back (None: as usual),
    and what alone may."""

    histories: Sequence[Sequence[str]]
    k: int
    keep_seen: bool | None
    rule: Rule | None = None
    every: bool = False
    """Whether every score is asked, of the one history; only who explains does so."""


@dataclass(frozen=True)
class Found:
    """What one request gets, a list entry a history."""

    version: RegisteredVersion
    lists: Sequence[Sequence[Recommendation]]
    unknown: Sequence[Sequence[str]]
    left: Left | None = None
    """Where there is a rule."""
    why: Sequence[Sequence[Why]] | None = None
    """Where that was asked for: of each item of each list."""
    explored: Explored | None = None
    """Where every score was asked."""


def answer(loaded: Loaded, questions: Sequence[Question]) -> list[Found | UserError]:
    """Answer several requests with as few searches as possible; nobody's answer depends on who else asks.

    The best k of a longer list are the list of k, as long as the models look as far for both
    (`Recommender.looks_at`). Requests with different rules are searched for together. One whose rule cannot
    be asked of this model gets the reason in place of an answer.
    """
    model = loaded.recommender
    groups: dict[tuple[bool, tuple[int, int]], list[int]] = defaultdict(list)
    found: dict[int, Found | UserError] = {}
    left: dict[int, Left | None] = {}
    for index, question in enumerate(questions):
        try:
            left[index] = None if question.rule is None else model.rules.left(question.rule)
        except UserError as error:
            found[index] = error
            continue
        masked = model.masks(None if question.keep_seen is None else not question.keep_seen)
        groups[masked, model.looks_at(question.k)].append(index)
    for (masked, _), members in groups.items():
        asked = [questions[index] for index in members]
        histories = [history for question in asked for history in question.histories]
        allowed = [
            rule.allowed if (rule := left[index]) else None for index in members for _ in questions[index].histories
        ]
        rules = allowed if any(rule is not None for rule in allowed) else None
        most = max(question.k for question in asked)
        lists = iter(model.recommend(histories, most, mask_history=masked, rules=rules))
        for index, question in zip(members, asked, strict=True):
            found[index] = Found(
                loaded.version,
                [next(lists)[: question.k] for _ in question.histories],
                [model.unknown(history) for history in question.histories],
                left[index],
            )
    return [found[index] for index in range(len(questions))]


class QueueFullError(Exception):
    """As much is waiting as may."""


class StoppedError(Exception):
    """The service is ending."""


Waiting = tuple[Question, "Future[Found]"]


class Batcher:
    """A queue with one thread that answers what waits, as many requests at once as fit.

    A service has one for lists and one for lists with reasons: those take longer, and no other request waits for them.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Sequence[Found | UserError]],
        most_waiting: int,
        most_at_once: int,
        observe: Callable[[int, float], None] = lambda histories, seconds: None,
    ) -> None:
        """
        Args:
            answer: answers several requests, in their order, some perhaps by what is wrong with them.
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
            # Before the answers: whoever has one finds its batch in the figures.
            self._observe(sum(len(question.histories) for question in questions), time.perf_counter() - began)
            for (_, future), found in zip(running, answers, strict=True):
                if isinstance(found, UserError):
                    future.set_exception(found)
                else:
                    future.set_result(found)

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
