"""What happens in a run, as events for the listeners of this process. Knows nothing of screens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prorec_core.artifacts import ArtifactRef
from prorec_core.progress import Progress


@dataclass(frozen=True)
class StageStarted:
    """A stage is about to run or to be found in the cache."""

    stage: str


@dataclass(frozen=True)
class StageProgress:
    """A stage tells how far it is."""

    stage: str
    progress: Progress


@dataclass(frozen=True)
class StageEnded:
    """A stage's artifact is there; `seconds` is what it took this time."""

    ref: ArtifactRef
    cached: bool
    seconds: float


@dataclass(frozen=True)
class Notice:
    """Something that the user should read."""

    text: str


@dataclass(frozen=True)
class PartStarted:
    """One of several pipelines begins: its title, its stages, its place among all, and the time left for all."""

    title: str
    stages: tuple[str, ...]
    number: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class PartEnded:
    """One of several pipelines is over; `text` says what came of it."""

    text: str


class StageStoppedError(Exception):
    """Raised by a listener at a stage's progress: the stage is to end there, and to leave nothing; says why."""


Event = StageStarted | StageProgress | StageEnded | Notice | PartStarted | PartEnded
_listeners: list[Callable[[Event], None]] = []


def emit(event: Event) -> None:
    """Pass an event to every listener, in the order in which they came."""
    for listener in list(_listeners):
        listener(event)


@contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Have a listener be called with every event of this process for as long as the context lasts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
