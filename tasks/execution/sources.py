"""Which source files a stage's result depends on, found by following imports. Knows nothing of what they do."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import prorec
from prorec_core import registry
from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.metrics import scorers, table
from prorec_core.registry import Registry

_ROOT = Path(prorec.__file__).resolve().parents[1]
_PACKAGE, _FLOWS = "prorec_core", "prorec"
_CHOOSING = "prorec_core.registry"
"""Whoever imports a registry from here depends on the implementation that the experiment chooses."""
_TABLES = {"prorec_core.metrics.scorers": scorers, "prorec_core.metrics.table": table}
"""What is measured depends on what decides figures there; how it is shown, on all of their words and colours."""
_SHOWING = "prorec_core.reports"
_MEASURING = "prorec_core.evaluation.heuristics.measuring"
"""Whoever imports it may measure by any heuristic."""
_WITHOUT_EFFECT = {
    # What is configured is in the key by its value; errors and progress never reach an artifact.
    "prorec_core.config",
    "prorec_core.config_compute",
    "prorec_core.config_data",
    "prorec_core.config_evaluate",
    "prorec_core.errors",
    "prorec_core.progress",
    "prorec_core.sections",
    # How a body gets its folders and its device.
    "prorec_core.stages.work",
    # It reads what was written before as it was meant, so that it changes nothing that is made.
    "prorec_core.versions",
    _CHOOSING,
}


def source_files(entries: Iterable[str], experiment: Experiment | None = None) -> list[Path]:
    """The files of these modules and of all of `prorec_core` that they import.

    A method from elsewhere counts with what it imports of its own package, and of the folder that it lies in. Files
    beside a module that are no Python (templates, word lists) count as part of it.

    Args:
        entries: modules.
        experiment: where a module asks a registry, the implementation that this experiment chooses counts; without
            one all of them do.

    Raises:
        UserError: a registry names a module that is nowhere.
    """
    modules: set[str] = set()
    todo = list(entries)
    while todo:
        name = todo.pop()
        if name in modules or name in _WITHOUT_EFFECT:
            continue
        if name.startswith(f"{_CHOOSING}."):
            todo += _chosen(getattr(registry, name.rpartition(".")[2]), experiment)
            continue
        if not _file(name).is_file():
            raise _nowhere(name)
        modules.add(name)
        todo += _imports(name)
        if name == scorers.__name__:
            todo += [row.counts.partition(":")[0] for row in scorers.SCORERS.values() if row.counts]
        if name == _MEASURING:
            todo += [row.heuristic.partition(":")[0] for row in scorers.SCORERS.values() if row.heuristic]
    files = {_file(name) for name in modules}
    beside = {
        path
        for file in files
        if _PACKAGE in file.parts and file.parent.name != _PACKAGE
        for path in file.parent.iterdir()
        if path.is_file() and path.suffix not in {".py", ".pyc"} and not path.name.startswith(".")
    }
    return sorted(files | beside)


def source_hash(entries: Iterable[str], experiment: Experiment | None = None) -> str:
    """Hash (hex) of `source_files`: changed code never passes for cached work.

    Of the tables of scorers and of metrics only what decides figures counts, unless something is shown.
    """
    total, files = hashlib.sha256(), source_files(entries, experiment)
    tables = {_file(name): found for name, found in _TABLES.items()}
    if not any(_file(_SHOWING).parent in file.parents for file in files):
        decisive = [list(tables[file].what_decides()) for file in files if file in tables]
        total.update(json.dumps(decisive).encode())
        files = [file for file in files if file not in tables]
    for path in files:
        named = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else Path(path.parent.name, path.name)
        total.update(f"{named.as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _chosen(kinds: object, experiment: Experiment | None) -> list[str]:
    """Modules of what a registry holds: of the one that the experiment chooses, or of all."""
    if not isinstance(kinds, Registry):
        return []
    if experiment is None:
        return [kinds.module(name) for name in kinds]
    value: Any = experiment
    for part in kinds.field.split("."):
        value = getattr(value, part)
    return kinds.chosen(value)


def _file(module: str) -> Path:
    place = _root(module.partition(".")[0]).joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _root(package: str) -> Path:
    """The folder that a package, or a module that is in none, lies in.

    Raises:
        UserError: nowhere, as what a notebook's cell or the program itself defines.
    """
    if package in (_PACKAGE, _FLOWS):
        return _ROOT
    try:
        found = importlib.util.find_spec(package)
    except ValueError:
        found = None
    if found is not None and found.origin is None and found.submodule_search_locations:
        return Path(next(iter(found.submodule_search_locations))).resolve().parent
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise _nowhere(package)
    place = Path(found.origin).resolve()
    return place.parents[1] if place.name == "__init__.py" else place.parent


def _nowhere(module: str) -> UserError:
    problem = f"the module {module} of a registered method is nowhere to be found as a Python file"
    return UserError(problem, cure="Put it into a file whose folder is in PYTHONPATH, or into prorec_core")


@cache
def _imports(module: str) -> tuple[str, ...]:
    file = _file(module)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return tuple(sorted(set(_followed(module, _imported(ast.parse(file.read_text()), package)))))


def _followed(module: str, imported: Iterable[str]) -> Iterator[str]:
    """Which of these a result depends on: the project's own, and for a method from elsewhere what lies with it."""
    own = module.partition(".")[0]
    elsewhere = own not in (_PACKAGE, _FLOWS)
    beside = elsewhere and not {"site-packages", "dist-packages"} & set(_root(own).parts)
    for name in imported:
        package = name.partition(".")[0]
        followed = package == _PACKAGE or (elsewhere and package == own) or (beside and _lies_in(package, _root(own)))
        if followed and (name.startswith(f"{_CHOOSING}.") or (name != _PACKAGE and _file(name).is_file())):
            yield name


def _lies_in(package: str, folder: Path) -> bool:
    try:
        return package not in (_PACKAGE, _FLOWS) and _root(package) == folder
    except UserError:
        return False


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Every module that may be meant, absolute, and `registry.NAME` of a registry."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base != _CHOOSING:
                yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
