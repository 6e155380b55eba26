"""Where the processes of a crew are: on this machine, or wherever a Ray cluster has room; the experiment says which.

Knows clusters, what of an experiment holds in one of several processes, and what they have to reach; knows nothing of
jobs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlparse

from prorec.flows.configuration.experiments import with_files_in
from prorec.flows.local import elsewhere
from prorec.flows.local.crew import Crew, Start, here, words
from prorec.flows.local.running import TRAINING
from prorec.tasks.execution.cluster import Cluster, cluster, expect_cluster, kept
from prorec.tasks.execution.events import Notice, emit
from prorec.tasks.execution.relay import Relayed
from prorec.tasks.local import paths
from prorec_core.config import Experiment
from prorec_core.config_compute import ComputeConfig
from prorec_core.errors import UserError

_CARRIED = ("PROREC_", "MLFLOW_", "PREFECT_")
"""How the names of variables begin that stores and servers are found by."""
_WAITS = "no machine of the cluster has had room for another process for two minutes: `ray status` tells who has it"


@dataclass(frozen=True)
class Members:
    """The processes that there may be.

    Attributes:
        count: how many at a time.
        start: starts one, told what is beside its own environment.
        mine: the experiment as one of them runs it.
        waits: see `Crew`.
        beside: False where all is done in this process, one by one.
    """

    count: int
    start: Callable[[Mapping[str, str]], Start]
    mine: Callable[[Experiment], Experiment] = lambda experiment: experiment
    waits: str = ""
    beside: bool = True

    def crew(self, jobs: int, environment: Mapping[str, str]) -> Crew:
        """A crew of no more of them than there are jobs."""
        return Crew(min(self.count, jobs), self.start(environment), self.waits)


def expect_members(count: int, experiment: Experiment) -> None:
    """Refuse what cannot come to be, before anything is done for it.

    Raises:
        UserError: there is no such cluster, nor room for one process on it; or GPUs are meant and none are asked for.
    """
    compute = experiment.compute
    if (
        compute.engine == "ray"
        and count > 1
        and not compute.gpus_per_worker
        and experiment.device not in {"auto", "cpu"}
    ):
        raise UserError(
            f"device={experiment.device} is meant, and no GPU is asked of the cluster",
            place="compute.gpus_per_worker",
            cure="Set it to 1, or device to auto",
        )
    expect_cluster(compute)


@contextmanager
def members(count: int, experiment: Experiment) -> Iterator[Members]:
    """Have there be room for so many processes at a time, or for as many as there is, while the context lasts.

    Raises:
        UserError: the cluster is not there, or has no room; or not all of its machines can reach the stores.
    """
    compute = experiment.compute
    if compute.engine == "local" or count == 1:
        # Trainings one after another use one cluster.
        with kept():
            yield Members(count, lambda environment: here(count, environment), _in_full, beside=count > 1)
    else:
        with cluster(compute, count) as found:
            _expect_stores_for(found)
            if found.places < count:
                emit(Notice(f"the cluster has room for {found.places} of {count} at a time; the others wait"))
            yield Members(
                found.places,
                lambda environment: _there(compute, environment),
                lambda each: _in_full(_mine(each, found.address)),
                _WAITS,
            )


def _there(compute: ComputeConfig, environment: Mapping[str, str]) -> Start:
    """Have processes of the cluster, each with what a worker has, or none of it where its workers have it."""
    alone = compute.workers == 1
    told = {
        **TRAINING,
        **{name: value for name, value in os.environ.items() if name.startswith(_CARRIED)},
        **environment,
        **elsewhere.told(),
        paths.ARTIFACTS_VARIABLE: str(paths.artifacts()),
        "OMP_NUM_THREADS": str(compute.cpus_per_worker),
    }
    cores, gpus = (compute.cpus_per_worker, compute.gpus_per_worker) if alone else (0, 0)
    return lambda _: Relayed(words(), told, cores=cores, gpus=gpus)


def _in_full(experiment: Experiment) -> Experiment:
    """The experiment with its files as named from here: another process begins in another folder."""
    return with_files_in(str(Path.cwd()), experiment)


def _mine(experiment: Experiment, address: str) -> Experiment:
    """What one process of the cluster makes of an experiment: a single worker is itself, several it asks for there."""
    compute = experiment.compute
    if compute.engine == "local":
        return experiment
    alone = compute.workers == 1
    sees = alone and compute.gpus_per_worker > 0
    # Of what is kept for it the first is its own; workers have theirs beside it.
    device = experiment.device.partition(":")[0] if sees or experiment.device == "cpu" else "auto"
    own = ComputeConfig() if alone else compute.model_copy(update={"address": address})
    return experiment.model_copy(update={"compute": own, "device": device})


def _expect_stores_for(found: Cluster) -> None:
    """Refuse stores that this machine alone can use, where there are others.

    Raises:
        UserError: says which.
    """
    if len(found.machines) == 1:
        return
    uri = paths.tracking_uri()
    place = f"MLFLOW_TRACKING_URI {paths.shown_uri(uri)}"
    cure = "Start MLflow's server for all of them, and set MLFLOW_TRACKING_URI to it"
    several = f"the cluster has {len(found.machines)} machines"
    if paths.sqlite_path(uri) is not None:
        raise UserError(
            f"{several}, and an SQLite file is for one: over a network it is damaged", place=place, cure=cure
        )
    if paths.tracks_over_http() and _is_loopback(urlparse(uri).hostname or ""):
        raise UserError(f"{several}, and this address means each of them itself", place=place, cure=cure)
    # One that lives as long as this process is no address: whoever is elsewhere has one of its own.
    url = os.environ.get("PREFECT_API_URL", "")
    if url and not os.environ.get(paths.EMBEDDED_VARIABLE) and _is_loopback(urlparse(url).hostname or ""):
        raise UserError(
            f"{several}, and this address means each of them itself",
            place=f"PREFECT_API_URL {url}",
            cure="Start Prefect's server for all of them, or unset it",
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
