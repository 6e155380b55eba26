"""The model in use, and its successor when the address comes to name another version.

Knows versions and how to find and load them; knows nothing of requests. A new version is loaded beside the old one,
warmed up, and takes over between two batches. Whatever fails here, the old version goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from prorec.flows.service.batching import Loaded, Recommends
from prorec.flows.service.metrics import Metrics
from prorec.tasks.registry import recommenders
from prorec.tasks.registry.recommenders import RegisteredVersion

_FIRST_PAUSE = 60.0
_LONGEST_PAUSE = 3600.0
_WARM_UP_SIZES = (1, 1, 8, 64)
_log = logging.getLogger(__name__)


def warm_up(recommender: Recommends) -> None:
    """Recommend to a few histories, so that no user waits for what is done once."""
    for size in _WARM_UP_SIZES:
        recommender.recommend([recommender.item_ids[:10]] * size)


class ModelKeeper:
    """Holds the model in use, and follows its address."""

    def __init__(
        self,
        uri: str,
        metrics: Metrics,
        find: Callable[[str], RegisteredVersion] = recommenders.find,
        load: Callable[[RegisteredVersion], Recommends] = recommenders.load,
        clock: Callable[[], float] = time.monotonic,
        prepare: Callable[[Recommends], None] = lambda model: None,
    ) -> None:
        """
        Args:
            uri: the address that is followed.
            metrics: of the service.
            find: which version it names.
            load: a version.
            clock: in seconds.
            prepare: what else a model needs before it takes over; not called again for the same one.
        """
        self.uri = uri
        self.current: Loaded | None = None
        self.problem: str | None = None
        """Why the version that the address names is not the one in use."""
        self._metrics = metrics
        self._find, self._load, self._clock, self._prepare = find, load, clock, prepare
        self._failed: RegisteredVersion | None = None
        self._pause, self._next_try = 0.0, 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, first: RegisteredVersion, poll: float, ready: Callable[[BaseException | None], None]) -> None:
        """Load a first version in the background, then look for another every `poll` seconds (0: never).

        Args:
            first: the version to start with.
            poll: seconds between looks.
            ready: called once, when the first version is in use, or with why it cannot be.
        """

        def work() -> None:
            try:
                self.use(first)
            except Exception as error:
                ready(error)
                return
            ready(None)
            while poll and not self._stopping.wait(poll):
                self.look()

        self._thread = threading.Thread(target=work, name="models", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A version that is being loaded is not waited for long."""
        self._stopping.set()
        if self._thread:
            self._thread.join(5.0)

    def look(self) -> None:
        """Find out which version the address names, and put it to use if it is another. Never raises."""
        try:
            version = self._find(self.uri)
        except Exception as error:
            self._metrics.polls.labels("failed").inc()
            self._tell(f"{self.uri} cannot be followed: {error}")
            return
        self._metrics.polls.labels("done").inc()
        if self.current and version == self.current.version:
            self._failed = None
            self._tell(None)
            return
        if version == self._failed and self._clock() < self._next_try:
            return
        try:
            self.use(version)
        except Exception as error:
            again = version == self._failed
            self._pause = min(2 * self._pause, _LONGEST_PAUSE) if again else _FIRST_PAUSE
            self._failed, self._next_try = version, self._clock() + self._pause
            self._tell(f"{version.uri} cannot be loaded: {error}")

    def use(self, version: RegisteredVersion) -> None:
        """Load a version, warm it up and put it to use.

        Raises:
            Exception: whatever is wrong with it; the model in use stays.
        """
        began = time.perf_counter()
        try:
            recommender = self._load(version)
            warm_up(recommender)
            self._prepare(recommender)
        except Exception:
            self._metrics.reloads.labels("failed").inc()
            raise
        self.current = Loaded(version, recommender)
        self._failed = None
        self._metrics.reloads.labels("done").inc()
        self._metrics.model_in_use(version)
        self._tell(None)
        _log.info("%s is in use, loaded in %.1f s", version.uri, time.perf_counter() - began)
        try:
            recommenders.remember(self.uri, version)
        except OSError as error:
            _log.warning("Which version was served could not be noted (%s)", error)

    def _tell(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            _log.warning("%s", problem)
        elif self.problem and not problem:
            _log.info("%s can be followed again", self.uri)
        self.problem = problem
