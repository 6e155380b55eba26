"""The whole pipeline at its smallest that still finds something, for tests that run all of it. Knows fields alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prorec.flows.configuration.experiments import nested

_SETTINGS = {
    "data.demo.users": 120,
    "data.demo.items": 60,
    "collaborative.dim": 16,
    "quantize.codes": 8,
    "generator.dim": 16,
    "generator.validation_users": 50,
    "evaluate.bootstrap_samples": 100,
}
_NO_CHANGES: Mapping[str, Any] = {}


def tiny(changes: Mapping[str, Any] = _NO_CHANGES, *, epochs: int = 1) -> dict[str, Any]:
    """An experiment's sections.

    Args:
        changes: other values, by dotted field.
        epochs: of each training.
    """
    return nested(_settings(changes, epochs))


def tiny_words(changes: Mapping[str, Any] = _NO_CHANGES, *, epochs: int = 1) -> list[str]:
    """The same as words of a command line, with `--set` before each."""
    return [word for name, value in _settings(changes, epochs).items() for word in ("--set", f"{name}={value}")]


def _settings(changes: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    trainings = {f"{stage}.epochs": epochs for stage in ("collaborative", "align", "generator")}
    return {**_SETTINGS, **trainings, **changes}
