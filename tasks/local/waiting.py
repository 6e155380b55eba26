"""When whoever waits says so: at once, and then ever more seldom. Knows a clock; knows nothing of what it is for."""

from __future__ import annotations

import time
from collections.abc import Callable

from prorec_core.progress import duration

_FIRST_REMINDER = 60.0


def so_far(seconds: float) -> str:
    """For how long something has been waited for, to be put after what it is; nothing at the beginning."""
    return f", {duration(seconds)} so far" if seconds >= 1 else ""


class Waiting:
    """Called again and again while something is waited for; tells it at once, after a minute, after two, four, …"""

    def __init__(self, tell: Callable[[float], None]) -> None:
        """`tell` is given the seconds waited so far."""
        self._tell = tell
        self._begun = time.monotonic()
        self._due = 0.0

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return time.monotonic() - self._begun

    def __call__(self) -> None:
        seconds = self.seconds
        if seconds >= self._due:
            self._tell(seconds)
            self._due = max(_FIRST_REMINDER, 2 * self._due)
