"""How the processes that train one model together come to talk: torch's process group, at an address of the first one.

Knows torch's process group and the interfaces of this machine; knows nothing of who started the processes, nor of what
is trained. On CPUs nothing listens but at the address that is given, where that is one of IPv4.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from prorec_core.training.workers import Group, WorkerLostError, Workers

_INTERFACE = "GLOO_SOCKET_IFNAME"
_ADDRESS_OF = 0x8915
"""Linux's request for the IPv4 address of an interface (SIOCGIFADDR)."""

Told = Callable[[tuple[str, int] | None], tuple[str, int]]
"""Gives what the first process has, a host and a port, to all of them."""


@contextmanager
def meet(rank: int, count: int, address: str, told: Told, *, device: str, seconds: int) -> Iterator[Workers]:
    """Have this be one of the workers that train one model, as long as the context lasts.

    A single one meets nobody, draws what one process does, and so makes the same.

    Args:
        rank: which of them this is, from 0.
        count: how many there are.
        address: of this machine, by which the others reach it.
        told: is called once by each of several.
        device: where this one computes, as in the experiment's `device`; NCCL connects GPUs, Gloo all else.
        seconds: how long one waits for the others in one step.

    Raises:
        WorkerLostError: another one does not come.
    """
    if count == 1:
        alone = Workers()
        alone.device = device
        yield alone
        return
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.set_device(device)
    # By itself Gloo takes the one that the host's name stands for, which often is the machine's own alone.
    elif _INTERFACE not in os.environ and (interface := _interface(address)):
        os.environ[_INTERFACE] = interface
    waits = timedelta(seconds=seconds)
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as door:
        store = None
        if rank == 0:
            door.bind((address, 0))
            port = door.getsockname()[1]
            # It closes what it is given itself.
            store = dist.TCPStore(  # type: ignore[attr-defined]
                address,
                port,
                is_master=True,
                timeout=waits,
                wait_for_workers=False,
                master_listen_fd=os.dup(door.fileno()),
            )
        host, port = told(None if store is None else (address, port))
    try:
        store = store or dist.TCPStore(host, port, is_master=False, timeout=waits)  # type: ignore[attr-defined]
        dist.init_process_group("nccl" if gpu else "gloo", store=store, rank=rank, world_size=count, timeout=waits)
    except RuntimeError as error:
        raise WorkerLostError(f"a worker does not come ({error})") from error
    yield Group(device=device)
    # Not after a loss: it would wait for whoever is gone.
    dist.destroy_process_group()


def _interface(address: str) -> str | None:
    """The interface with an IPv4 address; None where it is not found, or no system tells."""
    try:
        import fcntl

        wanted = socket.inet_aton(address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode()[:15])
                try:
                    answer = fcntl.ioctl(asking.fileno(), _ADDRESS_OF, request)
                except OSError:
                    continue
                if answer[20:24] == wanted:
                    return name
    except (ImportError, OSError):
        pass
    return None
