"""A Ray cluster that is ready to be worked with: one that is started here, or one that is there already.

Knows Ray, its versions, its token and what it has room for; knows nothing of what is computed. Ray is imported here
and where workers are used, never before a run asks for it.

A cluster of one's own lives on the loopback interface alone, behind a token that is drawn for it, sends no statistics
of use, and is gone with its owner, however that ends: processes, object store and folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prorec.tasks.local import left_behind
from prorec_core import threads
from prorec_core.config_compute import ComputeConfig
from prorec_core.errors import UserError, one_line

EXTRA = "pip install 'prorec[ray]'"
_PLACE = "compute"
_MARK = "PROREC_RAY_CLUSTER"
_OBJECT_STORE = 2**29
"""Bytes of the object store at most: tables are read from files, and what workers tell each other is small. The parts
of a large log do not fit it; what is over lies in Ray's folder for temporary files meanwhile."""
_SMALLEST_STORE = 80 * 2**20
_SECONDS_TO_ANSWER = 5.0
_ALONE = {
    # All its servers listen on the loopback interface; Ray reads this when it is imported.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_V2_ENABLED": "1",
    # By default they give way to whatever else runs.
    "RAY_worker_niceness": "0",
    # What Ray's own actors fail of and nobody asks for is no news; errors of workers are asked for.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Workers stay where they are: folders may be named from there.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        address: of its head, HOST:PORT, by which other processes of its machines find it.
        machines: the names of those that it has.
        places: how many times it has room for what was asked for, of as many times as were.
    """

    address: str
    machines: frozenset[str]
    places: int


@dataclass
class _Open:
    """The one cluster that this process is connected to, if it is, as it was asked for, and how often it is in use."""

    asked: ComputeConfig | None = None
    users: int = 0
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


_open = _Open()


@contextmanager
def cluster(compute: ComputeConfig, times: int = 1) -> Iterator[Cluster]:
    """Be connected to a cluster with room for all workers, as long as the context lasts.

    Contexts within it, and within `kept`, use the same one, where they ask for no more.

    Args:
        compute: what is asked for.
        times: by how many at a time; one that is started here has room for as many of them as this machine holds.

    Raises:
        UserError: Ray is not installed, no cluster answers at the address, it is of another version or refuses the
            token, or it has less than is asked for.
    """
    with kept():
        if _open.asked is None:
            with contextlib.ExitStack() as stack:
                _connect(compute, times, stack)
                found = _found(compute, times)
                _open.asked, _open.closing = compute, stack.pop_all()
        elif _open.asked.address != compute.address:
            raise UserError("another cluster is in use in this process", place=_PLACE, cure="Ask for one at a time")
        else:
            found = _found(compute, times)
        yield found


@contextmanager
def kept() -> Iterator[None]:
    """Have a cluster that is opened in the context stay until its end, so that several pieces of work use one."""
    _open.users += 1
    try:
        yield
    finally:
        _open.users -= 1
        if not _open.users:
            _open.asked = None
            _open.closing.pop_all().close()


def expect_installed(place: str = f"{_PLACE}.engine") -> None:
    """Refuse what cannot begin, before anything is done for it.

    Args:
        place: who asked for Ray.

    Raises:
        UserError: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("Ray is not installed", place=place, cure=f"Install it: {EXTRA}")


def expect_cluster(compute: ComputeConfig) -> None:
    """Refuse, in a moment, what cannot come to be; what is to be asked of a cluster itself is asked when it is used.

    Raises:
        UserError: Ray is not installed, this machine has less than is asked for, or nothing answers at the address.
    """
    if compute.engine == "local":
        return
    expect_installed()
    if compute.address is None:
        _expect_machine(compute)
    elif compute.address != "auto":
        _expect_address(compute.address)


def expect_room(compute: ComputeConfig) -> None:
    """Refuse to wait for more than the machines have together that are there now, whoever has it.

    Raises:
        UserError: says how many workers they hold.
    """
    _found(compute, 1)


@contextmanager
def head(port: int, dashboard: int) -> Iterator[Callable[[], bool]]:
    """Have there be a cluster of all that this machine has, which its other processes find at a port.

    Whoever asks it for something has to have the token in the file that `RAY_AUTH_TOKEN_PATH` names.

    Args:
        port: of its head, on the loopback interface.
        dashboard: of its dashboard, there too.

    Yields:
        Says whether it goes on.
    """

    def goes_on() -> bool:
        return any(node["Alive"] for node in _nodes())

    shown = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": dashboard}
    with contextlib.ExitStack() as stack, _environment({"RAY_GCS_SERVER_PORT": str(port)}):
        _start(stack, num_cpus=_cores(), **shown)
        yield goes_on


def _connect(compute: ComputeConfig, times: int, stack: contextlib.ExitStack) -> None:
    expect_installed()
    if compute.address is not None:
        _join(compute.address, stack)
        return
    workers = compute.workers * min(times, _expect_machine(compute))
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    _start(
        stack,
        num_cpus=workers * compute.cpus_per_worker,
        num_gpus=workers * compute.gpus_per_worker,
        include_dashboard=False,
    )


def _found(compute: ComputeConfig, times: int) -> Cluster:
    import ray

    everywhere: Any = ray
    nodes = _nodes()
    places = _expect_room(compute, [node["Resources"] for node in nodes])
    machines = frozenset(str(node["NodeManagerHostname"]) for node in nodes)
    return Cluster(str(everywhere.get_runtime_context().gcs_address), machines, min(times, places))


def _nodes() -> list[dict[str, Any]]:
    import ray

    everywhere: Any = ray
    return [node for node in everywhere.nodes() if node["Alive"]]


def _set() -> None:
    """Have Ray find its settings, which it reads when it is imported."""
    if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") is None:
        raise RuntimeError("Ray reads its settings when it is imported, which was done before they were there")
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)


def _start(stack: contextlib.ExitStack, **options: Any) -> None:
    """Start a cluster on this machine, and connect to it."""
    _set()
    name = secrets.token_hex(8)
    # Short: the names of the sockets in it may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="prorec-ray-"))
    watcher = left_behind.watch(f"{_MARK}={name}", folder)
    stack.callback(left_behind.dismiss, watcher)
    with _environment({**_ALONE, _MARK: name}):
        import ray

        stack.callback(ray.shutdown)
        place = {"object_store_memory": _store_size(), "_temp_dir": str(folder)}
        _init("on this machine", address="local", **place, **options)


def _join(address: str, stack: contextlib.ExitStack) -> None:
    """Connect to a cluster that this machine is part of."""
    _set()
    if address != "auto":
        _expect_address(address)
    import ray

    stack.callback(ray.shutdown)
    _init(f"{_PLACE}.address {address}", address=address)


def _expect_address(address: str) -> None:
    place = f"{_PLACE}.address {address}"
    if "://" in address:
        raise UserError(
            "a training needs a machine of the cluster to start from",
            place=place,
            cure="Give auto there, or submit the command from elsewhere: ray job submit --address … -- prorec run …",
        )
    _expect_answer(address, place)


def _init(place: str, **options: Any) -> None:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(configure_logging=False, log_to_driver=False, **options)
    except Exception as error:
        raise _told(error, place) from error
    finally:
        # Ray puts its own in its place, which ends the process at once.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _told(error: Exception, place: str) -> UserError:
    """Why there is no connection, in one line."""
    text = one_line(error)
    if "ersion mismatch" in text:
        return UserError(
            "the cluster runs another version of Ray or Python: " + text.partition("ersion mismatch")[2].lstrip(": "),
            place=place,
            cure="Have one version on all machines, as in one image",
        )
    if "uthenticat" in text or "token" in text.lower():
        return UserError(
            "the cluster does not take this token, or there is none here",
            place=place,
            cure="Set RAY_AUTH_TOKEN_PATH to a file with the token that the cluster was started with",
        )
    if "Failed to connect" in text:
        return UserError(
            "what answers is no Ray cluster, or does not take this token",
            place=place,
            cure="Set RAY_AUTH_TOKEN_PATH to a file with the token that the cluster was started with",
        )
    if isinstance(error, ConnectionError) or "GCS" in text or "address" in text:
        return UserError(
            f"no Ray cluster answers ({text})",
            place=place,
            cure="Start one, and run this on one of its machines: ray start --head",
        )
    return UserError(f"Ray does not start ({text})", place=place)


def _expect_answer(address: str, place: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError("this is no address", place=place, cure="Give HOST:PORT, as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers ({error})", place=place, cure="Start one: ray start --head --port " + port
        ) from error


def _expect_machine(compute: ComputeConfig) -> int:
    """How many times this machine has cores and GPUs for all workers; refuse more than it has."""
    import torch

    room: dict[str, float] = {"CPU": _cores()}
    if compute.gpus_per_worker:
        room["GPU"] = torch.cuda.device_count()
    return _expect_room(compute, [room])


def _cores() -> int:
    return len(threads.cores()) or os.cpu_count() or 1


def _expect_room(compute: ComputeConfig, machines: list[dict[str, float]]) -> int:
    """How many times the machines hold all workers, each of them whole on one; refuse more than they hold.

    Raises:
        UserError: says how many they hold.
    """
    wants = {"CPU": compute.cpus_per_worker, "GPU": compute.gpus_per_worker}
    holds = sum(min(int(room.get(kind, 0) // each) for kind, each in wants.items() if each) for room in machines)
    if holds < compute.workers:
        each = f"{compute.cpus_per_worker} cores" + (f" and {wants['GPU']} GPUs" if wants["GPU"] else "")
        has = "; ".join(f"{room.get('CPU', 0):g} cores, {room.get('GPU', 0):g} GPUs" for room in machines[:4])
        raise UserError(
            f"there is room for {holds} of {compute.workers} workers with {each} each (there are: {has})",
            place=f"{_PLACE}.workers",
            cure="Ask for fewer or smaller ones" + ("" if compute.address is None else ", or add machines"),
        )
    return holds // compute.workers


def _store_size() -> int:
    """Bytes for the object store: a part of the shared memory that is left, so that it is no file on a disk."""
    try:
        there = os.statvfs("/dev/shm")
    except OSError:
        return _OBJECT_STORE
    return max(_SMALLEST_STORE, min(_OBJECT_STORE, there.f_bavail * there.f_frsize // 4))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Have what is started in the context inherit these."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
