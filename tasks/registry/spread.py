"""Rows of recommendations made by workers of a Ray cluster, chunk by chunk.

Knows which model each worker loads, and where it finds it; knows nothing of histories, files or order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from prorec.tasks.execution.chunks import by_workers
from prorec.tasks.local.paths import ARTIFACTS_VARIABLE, artifacts
from prorec.tasks.registry import recommenders
from prorec.tasks.registry.recommenders import RegisteredVersion
from prorec_core.config_compute import ComputeConfig
from prorec_core.data.histories import Chunk

if TYPE_CHECKING:
    from prorec_core.generation.batch import BatchSettings, Making

_ENVIRONMENT = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_S3_ENDPOINT_URL",
)


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
        known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment = {**known, ARTIFACTS_VARIABLE: str(artifacts())}
        with by_workers(partial(_rows, version, settings), compute, tell, environment) as made:
            yield from made(chunks)

    return make


def _rows(version: RegisteredVersion, settings: BatchSettings) -> Callable[[Chunk], bytes]:
    from prorec_core.generation.batch import rows_of

    return rows_of(recommenders.load(version), settings)
