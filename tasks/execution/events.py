"""What happens in a run, as events for the listeners of this process. Knows nothing of screens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import TypeAdapter

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
    """One of several pipelines begins: its title, its stages, its place among all, and the time left for all; the name
    by which what happens in it is told as `Beside`, where it runs beside others.
    """

    title: str
    stages: tuple[str, ...]
    number: int
    total: int
    seconds_left: float | None
    beside: str = ""


@dataclass(frozen=True)
class PartEnded:
    """One of several pipelines is over: what came of it, and the name of one that ran beside others."""

    text: str
    beside: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Beside:
    """What happens in one of several pipelines that run side by side, with that one's name."""

    name: str
    event: StageStarted | StageProgress | StageEnded | Notice | PartStarted | PartEnded


class StageStoppedError(Exception):
    """Raised by a listener at a stage's progress: the stage is to end there, and to leave nothing; says why."""


Told = StageStarted | StageProgress | StageEnded | Notice
"""What one process tells another of its stages."""

_TOLD = {kind.__name__: TypeAdapter(kind) for kind in get_args(Told)}

Event = Told | PartStarted | PartEnded | Beside
_listeners: list[Callable[[Event], None]] = []


def as_json(event: Event) -> dict[str, Any]:
    """An event of a stage, or a notice, as JSON values."""
    name = type(event).__name__
    return {"kind": name, "values": _TOLD[name].dump_python(event, mode="json")}


def from_json(found: dict[str, Any]) -> Told:
    """What `as_json` made values of."""
    event: Told = _TOLD[found["kind"]].validate_python(found["values"])
    return event


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
