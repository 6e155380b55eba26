"""Whether the memory that is there is enough for a stage, told before it starts.

Knows sizes and limits; how a stage's need is estimated stands in `tasks.stages.memory`. All sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prorec.tasks.local.memory import Room, device_room, room
from prorec_core.errors import MachineError

CLOSE = 0.8
"""Share of the available memory from which on a need is told."""


@dataclass(frozen=True)
class Part:
    """A part of what a stage needs at its peak.

    Attributes:
        what: in words, as in "for …".
        size: bytes.
        cure: the setting that makes it smaller, in words.
        on_device: it lies where the models are trained; else in the machine's memory whatever the device.
        certain: it is there for certain, all of it at the same time as the other certain parts.
    """

    what: str
    size: int
    cure: str
    on_device: bool = False
    certain: bool = False


Need = Sequence[Part]
"""What a stage needs beside what its process has already; all parts at the same time."""


def total(need: Need) -> int:
    """All parts together."""
    return sum(part.size for part in need)


def expect_room(stage: str, need: Need, device: str) -> list[str]:
    """What to say of a need before the work starts: a line for each place where it is close.

    Args:
        stage: its name.
        need: what it needs.
        device: as in the experiment: auto, cpu, cuda, cuda:N or mps.

    Raises:
        MachineError: what is certain is more than there is in all.
    """
    index = cuda_index(device)
    elsewhere = [part for part in need if part.on_device and index is not None]
    places = [("of memory", [part for part in need if part not in elsewhere], room())]
    if index is not None:
        places.append((f"of memory of the device cuda:{index}", elsewhere, device_room(index)))
    return [line for where, parts, there in places if there and (line := _told(stage, where, parts, there))]


def _told(stage: str, where: str, parts: Need, there: Room) -> str:
    if not parts:
        return ""
    largest = max(parts, key=lambda part: part.size)
    certain = [part for part in parts if part.certain]
    if total(certain) > there.total:
        largest = max(certain, key=lambda part: part.size)
        raise MachineError(
            f"it needs at least {_gib(total(certain))} {where} ({_gib(largest.size)} for {largest.what}), "
            f"and there are {_gib(there.total)} in all",
            place=stage,
            cure=f"What helps: {largest.cure}",
        )
    if total(parts) < CLOSE * there.available:
        return ""
    return (
        f"it needs about {_gib(total(parts))} {where}, of which {_gib(there.available)} are available; "
        f"{_gib(largest.size)} are for {largest.what}. What helps: {largest.cure}"
    )


def cuda_index(device: str) -> int | None:
    """The number of the CUDA device that `device` means; None for another kind, or where there is none."""
    if device in ("cpu", "mps"):
        return None
    import torch

    index = int(device.partition(":")[2] or 0)
    return index if torch.cuda.is_available() and index < torch.cuda.device_count() else None


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
