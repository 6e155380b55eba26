"""How much memory this process takes, and how much it may still take. Knows processes, control groups and devices.

Knows nothing of stages. All sizes are bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_PAUSE = 0.05
"""Seconds between two looks at a process's memory, where the kernel does not keep the largest."""
_NEAR = 2**24
"""What a process may have grown by since its mark was set back; the kernel keeps it by thread."""

OF_STAGE, SAMPLED, OF_PROCESS = "kernel", "sampled", "process"
"""Where a peak comes from: the kernel's mark, set back when the work began; looks every 50 ms; or the largest since the
process began, which says nothing of the work alone."""


@dataclass
class Peak:
    """The largest resident memory while some work runs.

    Attributes:
        bytes: known once the work is done; the process's, with all that it held when the work began.
        how: OF_STAGE, SAMPLED or OF_PROCESS.
        device_bytes: the most that tensors took on a CUDA device; None where none was used.
    """

    bytes: int = 0
    how: str = OF_PROCESS
    device_bytes: int | None = None


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the peak of what is done in the context; one at a time in a process."""
    found = Peak()
    _forget_device_peak()
    if _set_back():
        found.how = OF_STAGE
        try:
            yield found
        finally:
            found.bytes, found.device_bytes = _status("VmHWM") or 0, _device_peak()
        return
    if not _status("VmRSS"):
        try:
            yield found
        finally:
            largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found.bytes, found.device_bytes = largest * (1 if sys.platform == "darwin" else 1024), _device_peak()
        return
    found.how, over = SAMPLED, threading.Event()

    def look() -> None:
        while True:
            found.bytes = max(found.bytes, _status("VmRSS") or 0)
            if over.wait(_PAUSE):
                return

    watcher = threading.Thread(target=look, name="peak-memory", daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
        found.bytes, found.device_bytes = max(found.bytes, _status("VmRSS") or 0), _device_peak()


def give_back() -> None:
    """Give the kernel what this process has freed and keeps: for the next allocations, but to others it looks taken.

    Trainings are started with settings of glibc's by which it keeps all (`flows.local.running`); elsewhere nothing is
    done.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@dataclass(frozen=True)
class Room:
    """How much memory there is.

    Attributes:
        available: what may still be taken.
        total: what could be, if nothing else were there, swap included.
    """

    available: int
    total: int


def room() -> Room | None:
    """That of this process: the machine's, or what its control groups leave of it; None where nobody says."""
    machine = _numbers(_PROC / "meminfo")
    if "MemAvailable" not in machine or "MemTotal" not in machine:
        return None
    swap = machine.get("SwapTotal", 0)
    available, total = machine["MemAvailable"] + machine.get("SwapFree", 0), machine["MemTotal"] + swap
    for limit, used in _groups():
        # How much swap a group may take is another limit: with it a group may have more than is said here.
        available, total = min(available, max(limit - used, 0)), min(total, limit + swap)
    return Room(available, total)


def device_room(index: int = 0) -> Room:
    """That of a CUDA device, which must be there."""
    import torch

    free, total = torch.cuda.mem_get_info(index)
    # What this process holds and does not use is free to it.
    kept = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return Room(free + kept, total)


def _set_back() -> bool:
    """Set the kernel's mark of the largest resident memory back to what it is now; false where that is not allowed."""
    try:
        (_PROC / "self" / "clear_refs").write_text("5")
    except OSError:
        return False
    # Some kernels take the order and do nothing.
    largest, now = _status("VmHWM"), _status("VmRSS")
    return largest is not None and now is not None and largest <= now + _NEAR


def _status(name: str) -> int | None:
    return _numbers(_PROC / "self" / "status").get(name)


def _numbers(file: Path) -> dict[str, int]:
    """The lines `name: number kB` of a file, in bytes; none where there is no such file."""
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return {}
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[2] == "kB"}


def _groups() -> Iterator[tuple[int, int]]:
    """Limit and use of each control group that this process is in and that has a limit."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = _CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.lstrip("/")
        # In a container the path may be the machine's, of which only the end can be seen, as the root.
        for place in (folder, *folder.parents):
            if not place.is_relative_to(root):
                break
            if (found := _group(place, *names)) is not None:
                yield found


def _group(folder: Path, limit: str, used: str, cached: str) -> tuple[int, int] | None:
    try:
        most, now = int((folder / limit).read_text()), int((folder / used).read_text())
        lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except (OSError, ValueError):
        return None
    # Files that were read and are not at work are dropped where room is needed.
    return most, max(now - sum(int(words[1]) for words in lines if words[0] == cached), 0)


def _cuda_in_use() -> bool:
    """Whether this process has used a CUDA device; imports nothing for it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available() and torch.cuda.is_initialized())


def _forget_device_peak() -> None:
    if _cuda_in_use():
        import torch

        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)


def _device_peak() -> int | None:
    if not _cuda_in_use():
        return None
    import torch

    return max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())) or None
