"""Timing in laps: each subject runs in a process of its own, and they take turns, lap by lap.

Taking turns spreads the noise of a shared machine over all subjects alike; a process of its own makes the peak
of its memory its own. Knows clocks and processes; knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Laps:
    """The clock inside a subject's process: waits for the starter, times a lap, tells, waits again."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with the answers
        self._started = 0.0

    def start(self) -> None:
        """Wait for the starter, then start the clock. Ends the process when there is no more to do."""
        if not sys.stdin.readline():
            raise SystemExit(0)
        self._started = time.perf_counter()

    def lap(self, scale: float = 1.0) -> None:
        """End a lap and begin the next; `scale` extrapolates from the part that was run to the whole."""
        seconds = (time.perf_counter() - self._started) * scale
        self._answers.write(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}) + "\n")
        self._answers.flush()
        self.start()


def peak_bytes() -> int:
    """The largest resident memory that this process ever had, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine() -> dict[str, Any]:
    """Where the figures were taken."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.is_file() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": cores,
        "threads": int(os.environ.get("OMP_NUM_THREADS", cores)),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


@dataclass
class Subject:
    """A subject seen from outside: its process, and the laps that it ran."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    peak: int = 0

    @classmethod
    def start(cls, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Subject:
        """Start `python -m benchmarks.worker NAME …`; it loads its inputs and waits."""
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        return cls(name, process)

    def lap(self, *, counts: bool) -> None:
        """Have it run one lap; one that does not count warms up caches and kernels."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the answer that is missing then tells
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            status = self.process.wait()
            raise RuntimeError(f"the benchmark '{self.name}' ended early with status {status}; see above")
        found = json.loads(answer)
        self.peak = max(self.peak, found["peak_bytes"])
        if counts:
            self.seconds.append(found["seconds"])

    def end(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def take_turns(subjects: Sequence[Subject], laps: int) -> None:
    """One lap each to warm up, then `laps` rounds in which each subject runs one lap."""
    try:
        for round_number in range(laps + 1):
            for subject in subjects:
                subject.lap(counts=round_number > 0)
    finally:
        for subject in subjects:
            subject.end()
