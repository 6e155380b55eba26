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
