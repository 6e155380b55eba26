"""The rules of the house, read off the source. Knows imports, lengths and calls; runs nothing of the project.

Arrows run down only: flows → tasks → prorec_core, inside prorec_core in the order in which data flows, and between the
rooms of tasks from those that know the method to those that know the machine.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "prorec_core": "prorec_core",
    "tasks": "prorec.tasks",
    "flows": "prorec.flows",
    "benchmarks": "benchmarks",
    "docsite": "docsite",
}
"""The project's folders, and the package that each is imported as."""
MAY_IMPORT = {
    "prorec_core": {"prorec_core"},
    "prorec.tasks": {"prorec_core", "prorec.tasks"},
    "prorec.flows": {"prorec_core", "prorec.tasks", "prorec.flows"},
    "benchmarks": {"prorec_core", "prorec.tasks", "prorec.flows", "benchmarks"},
    "docsite": {"prorec_core", "prorec.flows", "docsite"},
}
"""Which of these packages each may import."""
OF_NOBODY = {"tasks", "flows", "tests"}
"""What must not be imported by its bare name: others have modules of these names, and come first on some paths."""

ORDER = (
    {
        "visible",
        "yaml_text",
        "sections",
        "errors",
        "paths",
        "progress",
        "threads",
        "values",
        "registry",
        "by_data",
        "config_compute",
        "config_data",
        "config_evaluate",
        "config_changes",
        "config",
        "fitting",
        "artifacts",
        "kept",
        "versions",
    },
    {"data"},
    {"metrics"},
    {"training"},
    {"text"},
    {"sequential"},
    {"alignment"},
    {"quantization"},
    {"generation"},
    {"evaluation"},
    {"reports"},
    {"stages"},
    {"run"},
    {"api"},
    {"serving"},
)
"""The parts of prorec_core; a part never imports a later one."""
ROOMS = (
    {"local"},
    {"tracking"},
    {"execution"},
    {"registry"},
    {"stages"},
    {"upkeep", "tuning", "comparison"},
)
"""The rooms of tasks; a room never imports a later one."""
ORDERS = {"prorec_core": ORDER, "prorec.tasks": ROOMS}

ORCHESTRATION = {"prefect", "mlflow"}
SERVED_BY_MLFLOW = "prorec_core.serving"
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "torch.save"}
UNSAFE_ARGUMENTS = {("allow_pickle", True), ("weights_only", False)}
LONGEST = 400


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its syntax tree, and what it imports with the line where it does."""

    name: str
    path: Path
    tree: ast.Module
    imports: Mapping[str, int]

    @property
    def package(self) -> str:
        """Which of the packages it belongs to."""
        return _package(self.name)

    def below(self, package: str) -> bool:
        return f"{self.name}.".startswith(f"{package}.")


def read_modules(root: Path) -> dict[str, Module]:
    """Every module in the project's folders below `root`, by dotted name."""
    paths = {}
    for folder, above in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = (above, *path.relative_to(root / folder).with_suffix("").parts)
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        imports: dict[str, int] = {}
        for imported, line in _imports(tree, package, set(paths)):
            imports.setdefault(imported, line)
        found[name] = Module(name, path, tree, imports)
    return found


def _imports(tree: ast.Module, package: str, known: set[str]) -> Iterator[tuple[str, int]]:
    """Modules imported anywhere in a file, inside functions too: hiding an arrow does not turn it round."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, source] if source else above)
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield (full if full in known else source), node.lineno


def broken_rules(root: Path) -> list[str]:
    """Every breach of the rules below `root`, one line each; empty when the house is in order."""
    modules = read_modules(root)
    problems = _circles(modules)
    for module in modules.values():
        problems += _wrong_arrows(module)
        problems += _unsafe(module)
        lines = module.path.read_text(encoding="utf-8").splitlines()
        if len(lines) > LONGEST:
            problems.append(f"{module.name}: {len(lines)} lines, more than {LONGEST}")
        if module.tree.body and not ast.get_docstring(module.tree):
            problems.append(f"{module.name}: has no docstring that says what it knows")
    return problems


def _package(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "prorec" else parts[0]


def _wrong_arrows(module: Module) -> Iterator[str]:
    for imported, line in module.imports.items():
        other = _package(imported)
        place = f"{module.name}:{line}"
        if other in {*MAY_IMPORT, *OF_NOBODY} and other not in MAY_IMPORT[module.package]:
            yield f"{place}: {module.package} must not import {imported}"
        if module.package == "prorec_core" and other in ORCHESTRATION and module.name != SERVED_BY_MLFLOW:
            yield f"{place}: prorec_core must not import {imported}"
        if other == module.package in ORDERS and module.name != other and _rank(imported) > _rank(module.name):
            yield f"{place}: an earlier part must not import a later one, {imported}"


def _rank(name: str) -> int:
    package = _package(name)
    part = f"{name.removeprefix(package)}.".split(".")[1]
    if not part:
        return 0
    ranks = [rank for rank, parts in enumerate(ORDERS[package]) if part in parts]
    assert ranks, f"{name}: no place in ORDER or ROOMS; name the part in {Path(__file__).name}"
    return ranks[0]


def _unsafe(module: Module) -> Iterator[str]:
    for imported, line in module.imports.items():
        if imported.split(".")[0] in UNSAFE_MODULES:
            yield f"{module.name}:{line}: imports {imported}, which runs what it reads"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS:
                yield f"{module.name}:{node.lineno}: calls {called}"
            for word in node.keywords:
                if isinstance(word.value, ast.Constant) and (word.arg, word.value.value) in UNSAFE_ARGUMENTS:
                    yield f"{module.name}:{node.lineno}: passes {word.arg}={word.value.value!r}"


def _circles(modules: Mapping[str, Module]) -> list[str]:
    """Import circles among the modules, each told once, by depth-first search."""
    problems: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            problems.append(f"import circle: {' → '.join([*path[path.index(name) :], name])}")
        elif name not in done:
            for imported in sorted(modules[name].imports):
                if imported in modules and imported != name:
                    visit(imported, [*path, name])
            done.add(name)

    for name in sorted(modules):
        visit(name, [])
    return problems


def test_the_house_is_in_order() -> None:
    assert broken_rules(ROOT) == []


def test_the_checker_sees_every_folder() -> None:
    modules = read_modules(ROOT)
    assert {module.package for module in modules.values()} == set(MAY_IMPORT)
    assert "prorec_core.errors" in modules["prorec_core.artifacts"].imports


GOOD = {
    "prorec_core/__init__.py": "",
    "prorec_core/errors.py": '"""Errors."""\n',
    "prorec_core/data/stage.py": '"""Data."""\nfrom prorec_core.errors import UserError\nimport polars\n',
    "prorec_core/generation/__init__.py": "",
    "prorec_core/generation/stage.py": '"""Generation."""\nfrom ..data import stage\nmodel.eval()\n',
    "prorec_core/evaluation/domination.py": '"""Domination."""\n',
    "prorec_core/alignment/stage.py": '"""A."""\nfrom prorec_core.metrics.domination import domination\n',
    "prorec_core/serving.py": '"""Serving."""\nimport mlflow.pyfunc\n',
    "tasks/stages/data.py": '"""Task."""\nfrom prefect import task\nimport prorec_core.data.stage\n',
    "flows/full.py": '"""Flow."""\nimport prorec.tasks.stages.data\nimport prorec_core.errors\n',
}


def _build(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_house_in_order_passes(tmp_path: Path) -> None:
    assert broken_rules(_build(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "tasks/stages/up.py",
            "import prorec.flows.full",
            "stages.up:2: prorec.tasks must not import prorec.flows.full",
        ),
        (
            "tasks/local/up.py",
            "import prorec.tasks.stages.data",
            "must not import a later one, prorec.tasks.stages.data",
        ),
        ("flows/up.py", "from tasks.stages import data", "prorec.flows must not import tasks.stages"),
        (
            "prorec_core/data/up.py",
            "from prorec.tasks.stages import data",
            "prorec_core must not import prorec.tasks.stages.data",
        ),
        ("prorec_core/data/up.py", "def f():\n    import mlflow", "data.up:3: prorec_core must not import mlflow"),
        ("prorec_core/data/up.py", "from prefect.states import x", "prorec_core must not import prefect.states"),
        ("flows/up.py", "import benchmarks", "prorec.flows must not import benchmarks"),
        ("tasks/stages/up.py", "from tests.conftest import x", "prorec.tasks must not import tests.conftest"),
        ("prorec_core/data/up.py", "import prorec_core.generation.stage", "must not import a later one"),
        ("prorec_core/data/up.py", "from prorec_core.generation import stage", "must not import a later one"),
        ("prorec_core/data/up.py", "from ..generation.stage import x", "must not import a later one"),
        ("prorec_core/progress.py", "import prorec_core.data.stage", "must not import a later one"),
        ("prorec_core/text/up.py", "import prorec_core.evaluation.slices", "must not import a later one"),
        ("prorec_core/alignment/up.py", "import prorec_core.reports.evaluation", "must not import a later one"),
        (
            "tasks/stages/data.py",
            "import prorec.tasks.stages.data2",
            "import circle: prorec.tasks.stages.data → prorec.tasks.stages.data2 → prorec.tasks.stages.data",
        ),
        ("tasks/stages/bad.py", "import pickle", "prorec.tasks.stages.bad:2: imports pickle"),
        ("tasks/stages/bad.py", "from joblib import load", "imports joblib"),
        ("tasks/stages/bad.py", "torch.load(path)", "prorec.tasks.stages.bad:2: calls torch.load"),
        ("tasks/stages/bad.py", "eval('1')", "calls eval"),
        ("tasks/stages/bad.py", "exec('1')", "calls exec"),
        ("tasks/stages/bad.py", "np.load(path, allow_pickle=True)", "passes allow_pickle=True"),
        ("tasks/stages/long.py", "x = 1\n" * (LONGEST - 1), "prorec.tasks.stages.long: 401 lines"),
    ],
)
def test_each_breach_is_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    files = {
        **GOOD,
        "tasks/stages/data2.py": '"""Other."""\nfrom prorec.tasks.stages import data\n',
        name: f'"""A module."""\n{text}\n',
    }
    problems = broken_rules(_build(tmp_path, files))
    assert len(problems) == 1 and message in problems[0], problems


def test_a_module_without_docstring_is_told(tmp_path: Path) -> None:
    files = {**GOOD, "tasks/stages/bare.py": "x = 1\n"}
    assert broken_rules(_build(tmp_path, files)) == [
        "prorec.tasks.stages.bare: has no docstring that says what it knows"
    ]


def test_a_part_without_a_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no place in ORDER"):
        broken_rules(_build(tmp_path, {**GOOD, "prorec_core/novelty/x.py": '"""N."""\nimport prorec_core.errors\n'}))
