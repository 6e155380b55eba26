"""Rows of recommendations made by workers of a Ray cluster, chunk by chunk.

Knows Ray's actors, and which model each loads; knows nothing of histories, files or order. Actors of Ray Core rather
than Ray Data: a chunk is named by its content, is passed over where its rows are there, and is kept as soon as they
are, in whatever order. Ray Data cuts and joins blocks as it likes, which is of use for none of this.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prorec.tasks.execution.cluster import cluster
from prorec.tasks.local.paths import ARTIFACTS_VARIABLE, artifacts
from prorec.tasks.registry.recommenders import RegisteredVersion
from prorec_core.config_compute import ComputeConfig
from prorec_core.data.histories import Chunk
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec_core.generation.batch import BatchSettings, Making

_AT_ONCE = 2
"""Chunks that each worker has: the one that it makes, and the next."""

_SECONDS = 1.0
_SECONDS_WITHOUT_WORKERS = 120.0
_DEATHS = 3
"""Workers that may die without a chunk in between."""

_ENVIRONMENT = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_S3_ENDPOINT_URL",
)
_log = logging.getLogger(__name__)


class _Server:
    """A worker: has the model, and makes rows of chunks. An actor, in a process that Ray started."""

    def __init__(
        self, version: RegisteredVersion, settings: BatchSettings, threads: int, environment: dict[str, str]
    ) -> None:
        os.environ.update(environment)
        import torch

        from prorec.tasks.registry import recommenders
        from prorec_core.generation.batch import rows_of

        torch.set_num_threads(threads)
        self._make = rows_of(recommenders.load(version), settings)

    def here(self) -> str:
        """The machine that it is on."""
        return os.uname().nodename

    def rows(self, chunk: Chunk) -> bytes:
        """The rows of a chunk, as the content of a Parquet file."""
        return self._make(chunk)


@dataclass
class _Worker:
    """An actor, and what it has to do."""

    actor: Any
    sign: Any
    """Comes true once the model is loaded."""

    ready: bool = False
    chunks: dict[Any, tuple[str, Chunk]] = field(default_factory=dict)


def making(
    version: RegisteredVersion, settings: BatchSettings, compute: ComputeConfig, tell: Callable[[str], None]
) -> Making:
    """Has workers of a cluster make the chunks; the arguments are those of one process, and so is what is made.

    Args:
        version: the model.
        settings: what is asked for.
        compute: the cluster, and how many workers.
        tell: takes what the user should read.
    """

    def make(chunks: Iterator[tuple[str, Chunk]]) -> Iterator[tuple[str, bytes]]:
        with cluster(compute):
            crew = _Crew(version, settings, compute, tell)
            try:
                yield from crew.work(chunks)
            finally:
                crew.end()

    return make


class _Crew:
    """The workers of one call."""

    def __init__(
        self, version: RegisteredVersion, settings: BatchSettings, compute: ComputeConfig, tell: Callable[[str], None]
    ) -> None:
        import ray

        self._tell, self._compute = tell, compute
        known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self._arguments = (
            version,
            settings,
            compute.cpus_per_worker,
            {**known, ARTIFACTS_VARIABLE: str(artifacts())},
        )
        needs = {"num_cpus": compute.cpus_per_worker, "num_gpus": compute.gpus_per_worker}
        self._kind: Any = ray.remote(_Server).options(**needs, max_restarts=0)
        self._workers = [self._begin() for _ in range(compute.workers)]
        self._deaths = 0
        self._alone_since: float | None = None

    def _begin(self) -> _Worker:
        actor = self._kind.remote(*self._arguments)
        return _Worker(actor, actor.here.remote())

    def work(self, chunks: Iterator[tuple[str, Chunk]]) -> Iterator[tuple[str, bytes]]:
        """All rows, as they come."""
        import ray

        again: deque[tuple[str, Chunk]] = deque()
        more = True
        while True:
            for worker in self._workers:
                while worker.ready and len(worker.chunks) < _AT_ONCE:
                    following = again.popleft() if again else next(chunks, None) if more else None
                    if following is None:
                        more = False
                        break
                    worker.chunks[worker.actor.rows.remote(following[1])] = following
            if not more and not again and not any(worker.chunks for worker in self._workers):
                return
            waits: dict[Any, _Worker] = {}
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
                except ray.exceptions.RayActorError as error:
                    again.extend(worker.chunks.values())
                    self._replace(worker, error)
                    continue
                if not worker.ready:
                    worker.ready = True
                    continue
                self._deaths = 0
                yield worker.chunks.pop(reference)[0], found

    def _replace(self, worker: _Worker, error: Exception) -> None:
        self._workers.remove(worker)
        self._deaths += 1
        if self._deaths > _DEATHS * self._compute.workers:
            raise UserError(
                f"workers died {self._deaths} times before a chunk was done",
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
