"""Chunks of work made by workers of a Ray cluster, in whatever order; dead workers are replaced.

Knows Ray's actors; knows nothing of what a chunk is, of files or of order. Actors of Ray Core rather than Ray Data: a
chunk is named by its content, is passed over where what it makes is there, and is kept as soon as it is made. Ray Data
cuts and joins blocks as it likes, which is of use for none of this.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prorec.tasks.execution.cluster import cluster
from prorec.tasks.execution.worker import Failed, attempted
from prorec_core.config_compute import ComputeConfig
from prorec_core.errors import UserError, one_line
from prorec_core.kept import Make, Making, Open

_AT_ONCE = 2
"""Chunks that each worker has: the one that it makes, and the next."""
_SECONDS = 1.0
_SECONDS_WITHOUT_WORKERS = 120.0
_DEATHS = 3
"""Workers that may die without a chunk in between."""
_log = logging.getLogger(__name__)


class _Worker:
    """Makes chunks, one after the other. An actor, in a process that Ray started."""

    def __init__(self, environment: Mapping[str, str], threads: int) -> None:
        os.environ.update(environment)
        import torch

        torch.set_num_threads(threads)
        self._make: Make | None = None

    def begin(self, open_: Open) -> Failed | None:
        """Make ready; tells what it failed of."""
        return attempted(self._open, open_)

    def make(self, chunk: Any) -> Any:
        """What is made of a chunk, or what that failed of."""
        assert self._make is not None
        return attempted(self._make, chunk)

    def _open(self, open_: Open) -> None:
        self._make = open_()


@dataclass
class _Known:
    """A worker, and what it has to do."""

    actor: Any
    sign: Any
    """Comes once it is ready."""

    ready: bool = False
    chunks: dict[Any, tuple[str, Any]] = field(default_factory=dict)


@contextmanager
def by_workers(
    open_: Open, compute: ComputeConfig, tell: Callable[[str], None], environment: Mapping[str, str] | None = None
) -> Iterator[Making]:
    """Have workers of a cluster make chunks while the context lasts.

    Args:
        open_: makes a worker ready.
        compute: the cluster, and how many workers.
        tell: takes what the user should read.
        environment: variables that workers get.

    Raises:
        UserError: there is no such cluster; workers die again and again, or do not come up; or a worker met it.
    """
    with cluster(compute):
        crew = _Crew(open_, compute, tell, environment or {})
        try:
            yield crew.work
        finally:
            crew.end()


class _Crew:
    """The workers of one call."""

    def __init__(
        self, open_: Open, compute: ComputeConfig, tell: Callable[[str], None], environment: Mapping[str, str]
    ) -> None:
        import ray

        self._open, self._compute, self._tell = open_, compute, tell
        needs = {"num_cpus": compute.cpus_per_worker, "num_gpus": compute.gpus_per_worker}
        self._kind: Any = ray.remote(_Worker).options(**needs, max_restarts=0)
        self._given = (dict(environment), compute.cpus_per_worker)
        self._workers = [self._begin() for _ in range(compute.workers)]
        self._deaths = 0
        self._alone_since: float | None = None

    def _begin(self) -> _Known:
        actor = self._kind.remote(*self._given)
        return _Known(actor, actor.begin.remote(self._open))

    def work(self, chunks: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """What is made of all chunks, as it comes."""
        import ray

        again: deque[tuple[str, Any]] = deque()
        more = True
        while True:
            for worker in self._workers:
                while worker.ready and len(worker.chunks) < _AT_ONCE:
                    following = again.popleft() if again else next(chunks, None) if more else None
                    if following is None:
                        more = False
                        break
                    worker.chunks[worker.actor.make.remote(following[1])] = following
            if not more and not again and not any(worker.chunks for worker in self._workers):
                return
            waits: dict[Any, _Known] = {}
            for worker in self._workers:
                waits |= dict.fromkeys(worker.chunks if worker.ready else [worker.sign], worker)
            done, _ = ray.wait(list(waits), num_returns=1, timeout=_SECONDS)
            self._expect_workers()
            for reference in done:
                worker = waits[reference]
                if worker not in self._workers:
                    continue
                try:
                    found = ray.get(reference)
                except ray.exceptions.RayError as error:
                    # Its process died, or its machine, what it made there included.
                    again.extend(worker.chunks.values())
                    self._replace(worker, error)
                    continue
                if isinstance(found, Failed):
                    raise found.raised
                if not worker.ready:
                    worker.ready = True
                    continue
                self._deaths = 0
                yield worker.chunks.pop(reference)[0], found

    def _replace(self, worker: _Known, error: Exception) -> None:
        import ray

        self._workers.remove(worker)
        ray.kill(worker.actor)
        self._deaths += 1
        if self._deaths > _DEATHS * self._compute.workers:
            raise UserError(
                f"workers died {self._deaths} times before a chunk was done ({one_line(error)})",
                place="compute",
                cure="Look at their memory (dmesg tells what the kernel ended), or ask for fewer workers or smaller "
                "chunks; what is done is kept",
            ) from error
        self._tell("a worker died; another takes its place, and its chunks are made by others")
        _log.info("A worker died: %s", error)
        self._workers.append(self._begin())

    def _expect_workers(self) -> None:
        """Go on with those that are there; where there are none for long, give up."""
        if any(worker.ready for worker in self._workers):
            self._alone_since = None
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since > _SECONDS_WITHOUT_WORKERS:
            raise UserError(
                f"no worker has come up in {_SECONDS_WITHOUT_WORKERS:.0f} seconds",
                place="compute",
                cure="Look at the cluster (ray status); what is done is kept",
            )

    def end(self) -> None:
        """Have no worker be left."""
        import ray

        for worker in self._workers:
            ray.kill(worker.actor)
