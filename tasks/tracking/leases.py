"""Who does a piece of work: one process at a time on all machines that share a tracking store.

Knows the store's tags and processes' signs of life; knows nothing of stages.

What MLflow has over HTTP as in a database of its own is that a tag which was set is seen by whoever reads afterwards.
Nothing of it can be compared and set at once, so the order of who comes first is Lamport's bakery algorithm ("A new
solution of Dijkstra's concurrent programming problem", 1974): whoever wants the work takes a number above all that are
there, and does it when no smaller one is left. Each writes its own ticket alone, a tag of the store's experiment.

A ticket counts up for as long as its owner lives. One whose owner is known to be gone is dropped at once: its lock is
free, or its process number can be looked up from here and is not there. Elsewhere one that stands still is dropped
after `expiry()` seconds by the clock of whoever waits, in which the store answered all the time. Clocks of two machines
are never compared.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from uuid import uuid4

from prorec.tasks.local import processes
from prorec.tasks.local.seconds import seconds_of
from prorec.tasks.local.waiting import Waiting
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import client
from prorec.tasks.tracking.retries import is_passing, retrying
from prorec_core.progress import duration

EXPIRY_VARIABLE = "PROREC_LEASE_SECONDS"
_TAG = "prorec.lease."
_RENEWALS = 6
"""How often a ticket counts up in the time after which one that stands still is dropped."""

_PAUSES = (0.1, 2.0)
"""Seconds between two looks at those before: at first, at the longest."""

_given_up: set[str] = set()
"""Names of this process's leases that are over, whether the store could be told so or not."""
_log = logging.getLogger(__name__)


def expiry() -> float:
    """Seconds without a sign after which an owner that cannot be seen is taken for dead: `PROREC_LEASE_SECONDS`, 60."""
    return max(1.0, seconds_of(EXPIRY_VARIABLE, 60.0))


@dataclass(frozen=True)
class Ticket:
    """What the tag of whoever wants the work says.

    Attributes:
        number: its place; 0 while it looks for one.
        beat: how often it has counted up.
        seconds: since it holds the work, by its own clock; negative while it waits.
        owner: its process, as `processes.owner` has it.
    """

    number: int
    beat: int
    seconds: float
    owner: Mapping[str, str]

    def __str__(self) -> str:
        who = f"process {self.owner.get('pid', '?')} on {self.owner.get('host', '?')}"
        return f"{who}, at work on it for {duration(self.seconds)}" if self.seconds >= 0 else f"{who}, which waits too"


class LeaseLostError(Exception):
    """Others took this process for dead, since it gave no sign for too long, and do its work."""

    def __str__(self) -> str:
        return f"this process gave no sign of life for {duration(expiry())}, and another took its work over"


class Lease:
    """The right to do a piece of work, renewed by a thread for as long as it is held."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._name = uuid4().hex
        self._ticket = Ticket(0, 0, -1.0, processes.owner())
        self._held_since: float | None = None
        self._lost = False
        self._change = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def expect(self) -> None:
        """Go on only while it is held.

        Raises:
            LeaseLostError: others dropped it.
        """
        if self._lost:
            raise LeaseLostError

    def _queue(self) -> None:
        retrying(self._write)
        highest = max((ticket.number for ticket in retrying(_read, self._key).values()), default=0)
        self._ticket = replace(self._ticket, number=highest + 1)
        retrying(self._write)
        self._thread.start()

    def _wait(self, waiting: Callable[[str, float], None]) -> bool:
        """Return once nobody is before; False if this one was dropped meanwhile."""
        silence, pause = _Silence(), _PAUSES[0]
        told = Waiting(lambda seconds: waiting(str(first), seconds))
        while not self._lost:
            before = self._before(silence)
            if not before:
                self._held_since = time.monotonic()
                retrying(self._beat)
                return True
            first = min(before.values(), key=lambda ticket: (ticket.number == 0, ticket.number))
            if first.number:
                told()
            time.sleep(pause)
            pause = min(1.5 * pause, _PAUSES[1], expiry() / _RENEWALS)
        return False

    def _before(self, silence: _Silence) -> dict[str, Ticket]:
        """Who comes first, or has no number yet; those who died are dropped."""
        tickets = retrying(_read, self._key)
        self._lost = self._lost or self._name not in tickets
        mine = (self._ticket.number, self._name)
        others = {name: each for name, each in tickets.items() if name != self._name}
        # A store that could take nothing, as on a full disk, still has what its owner has long given up.
        gone = [name for name, each in others.items() if name in _given_up or processes.is_gone(each.owner)]
        for name in {*gone, *silence.over(others)}:
            _log.info("A lease of %s is dropped: it gives no sign of life", others[name])
            _drop(self._key, name)
            del others[name]
        return {name: each for name, each in others.items() if not each.number or (each.number, name) < mine}

    def _beat(self) -> None:
        since = self._held_since
        seconds = -1.0 if since is None else time.monotonic() - since
        with self._change:
            self._ticket = replace(self._ticket, beat=self._ticket.beat + 1, seconds=round(seconds, 1))
            if not self._ended.is_set():
                self._write()

    def _write(self) -> None:
        client().set_experiment_tag(_experiment(), _name(self._key, self._name), json.dumps(asdict(self._ticket)))

    def _renew(self) -> None:
        pause = expiry() / _RENEWALS
        while not self._ended.wait(pause):
            try:
                # To write it again would be to take it back from whoever dropped it.
                self._lost = self._lost or self._name not in _read(self._key)
                if self._lost:
                    return
                self._beat()
            except Exception as error:
                if not is_passing(error):
                    _log.warning("A lease could not be renewed: %s", error)

    def _release(self) -> None:
        self._ended.set()
        with self._change:
            pass
        _given_up.add(self._name)
        _drop(self._key, self._name)


class _Silence:
    """For how long tickets have stood still, by the clock of whoever looks, who has to look often."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._since: dict[str, tuple[int, float]] = {}

    def over(self, tickets: Mapping[str, Ticket]) -> list[str]:
        """The tickets that have stood still for as long as none of a living process does."""
        now = time.monotonic()
        if now - self._looked > expiry() / 3:
            # The store was away, for their owners too; or this process stood still itself.
            self._since.clear()
        self._looked = now
        for name, ticket in tickets.items():
            sign = ticket.number + ticket.beat
            if self._since.get(name, (-1, 0.0))[0] != sign:
                self._since[name] = sign, now
        return [name for name in tickets if now - self._since[name][1] > expiry()]


@contextlib.contextmanager
def lease(key: str, waiting: Callable[[str, float], None]) -> Iterator[Lease]:
    """Have the work with this key while the context lasts, once nobody who asked before has it.

    Args:
        key: hexadecimal text.
        waiting: told who has it and for how many seconds one has waited: at once, and then ever more seldom.

    Raises:
        TrackingAwayError: the store stayed away.
    """
    while True:
        mine = Lease(key)
        try:
            mine._queue()
            if mine._wait(waiting):
                yield mine
                return
        finally:
            mine._release()


def holder(key: str) -> str:
    """Who has the work with this key, in words; empty where nobody has, or the store does not say."""
    try:
        held = [ticket for ticket in _read(key).values() if ticket.seconds >= 0]
    except Exception:
        return ""
    return str(min(held, key=lambda ticket: ticket.number)) if held else ""


def drop_dead() -> None:
    """Drop what processes left that are known to be gone."""
    for tag, value in _tags().items():
        key, _, name = tag.removeprefix(_TAG).partition(".")
        ticket = _ticket(value)
        if ticket is None or processes.is_gone(ticket.owner):
            _drop(key, name)


def _name(key: str, ticket: str) -> str:
    return f"{_TAG}{key}.{ticket}"


def _ticket(text: str) -> Ticket | None:
    """The ticket that a tag holds; None where somebody wrote something else into it."""
    try:
        values = json.loads(text)
        owner = {str(name): str(value) for name, value in values["owner"].items()}
        return Ticket(int(values["number"]), int(values["beat"]), float(values["seconds"]), owner)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _experiment() -> str:
    return mlflow_runs.store_experiment()


def _tags() -> dict[str, str]:
    found = client().get_experiment(_experiment())
    return {str(tag): str(value) for tag, value in found.tags.items() if tag.startswith(_TAG)}


def _read(key: str) -> dict[str, Ticket]:
    """The tickets for a key, by name."""
    of_key = _name(key, "")
    found = {tag.removeprefix(of_key): _ticket(value) for tag, value in _tags().items() if tag.startswith(of_key)}
    return {name: ticket for name, ticket in found.items() if ticket is not None}


def _drop(key: str, name: str) -> None:
    """Drop a ticket that may be gone already; where the store is away, it stands still until somebody does."""
    with contextlib.suppress(Exception):
        client().delete_experiment_tag(_experiment(), _name(key, name))
