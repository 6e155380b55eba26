"""How long work tells how far it is. Knows nothing of screens, servers or files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One step of a stage's work: `step` of `total`, counted in `unit` ("epoch", "text", "user", …).

    `metrics` holds what was measured at this step (losses, validation metrics); names have no '@'.
    """

    step: int
    total: int
    unit: str
    metrics: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report to nobody."""


def duration(seconds: float) -> str:
    """Seconds as people write them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"
