"""The part of an experiment that a stage declared: what its key holds, and all that its body can read.

Knows sections and dotted names; knows nothing of stages.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

from prorec_core.config import Experiment
from prorec_core.sections import RUN_ONLY, without_run_only


class UndeclaredReadError(Exception):
    """A stage's body read what the stage did not declare, so that its key would not have told."""


def declared(experiment: Experiment, names: tuple[str, ...]) -> dict[str, Any]:
    """The values at some dotted names, as plain data; run-only fields are left out."""
    found: dict[str, Any] = {}
    for name in names:
        value: Any = experiment
        for part in name.split("."):
            value = getattr(value, part)
        found[name] = without_run_only(value)
    return found


def view(experiment: Experiment, names: tuple[str, ...], reader: str) -> Experiment:
    """The experiment with nothing but the parts at some dotted names, and run-only fields.

    To read anything else raises `UndeclaredReadError`, which tells `reader`.
    """
    return cast("Experiment", _View(experiment, names, reader, ""))


def whole(part: Experiment) -> tuple[Experiment, tuple[str, ...], str]:
    """The arguments that `view` made a part of, so that another process can make it too."""
    assert isinstance(part, _View)
    return cast("Experiment", part._whole), part._names, part._reader


class _View:
    def __init__(self, whole: BaseModel, names: tuple[str, ...], reader: str, path: str) -> None:
        self._whole, self._names, self._reader, self._path = whole, names, reader, path

    def __getattr__(self, name: str) -> Any:
        field = type(self._whole).model_fields.get(name)
        if field is None:
            raise AttributeError(f"{self._path or 'the experiment'} has no field '{name}'")
        value = getattr(self._whole, name)
        if name in self._names or field.json_schema_extra == RUN_ONLY:
            return value
        below = tuple(each.removeprefix(f"{name}.") for each in self._names if each.startswith(f"{name}."))
        if not below:
            raise UndeclaredReadError(f"the stage '{self._reader}' reads '{self._path}{name}' and does not declare it")
        return _View(value, below, self._reader, f"{self._path}{name}.")
