"""Seconds that somebody gives in the environment. Knows how they are written; knows nothing of what waits for them."""

from __future__ import annotations

import logging
import os
from functools import cache

_log = logging.getLogger(__name__)


def seconds_of(variable: str, default: float) -> float:
    """What a variable of the environment says; the default where it says nothing, or no seconds, which is told."""
    text = os.environ.get(variable, "").strip()
    found = _read(text)
    if text and found is None:
        _tell(variable, text, default)
    return default if found is None else found


def _read(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if found >= 0 else None


@cache
def _tell(variable: str, text: str, default: float) -> None:
    """Once a process: it is asked for again and again."""
    _log.warning("%s=%s is no number of seconds; %g count", variable, text, default)
