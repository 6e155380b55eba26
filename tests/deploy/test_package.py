"""The wheel and the sdist: what is built of this project works without its checkout."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.tiny import tiny_words

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("configs/*.yaml", "configs/*/*.yaml", "prefect.yaml")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def elsewhere(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `prorec` of an environment that has the wheel and, of this one, the libraries alone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
    # A path in a .pth file is looked through after the environment's own, and its .pth files are not read: what is
    # installed of this project beside the libraries is not found.
    borrowed = {sysconfig.get_path("purelib"), *(each for each in sys.path if each.endswith("site-packages"))}
    (own / "borrowed.pth").write_text("".join(f"{each}\n" for each in sorted(borrowed)))
    return folder / "bin" / "prorec"


def test_nothing_that_a_run_reads_is_missing(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    there = set(zipfile.ZipFile(wheel).namelist())
    files = {path for pattern in KEPT for path in ROOT.glob(pattern)}
    assert len(files) > 3 and {f"prorec/{path.relative_to(ROOT)}" for path in files} <= there
    sources = {
        f"{'' if top == 'prorec_core' else 'prorec/'}{path.relative_to(ROOT)}"
        for top in ("prorec_core", "flows", "tasks")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert sources <= there
    assert not {name for name in there if name.startswith(("tests/", "benchmarks/", "docs/", "docsite/"))}
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        assert not [member.name for member in opened if member.issym() or member.islnk()]


def test_it_runs_in_an_empty_folder(elsewhere: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in {"PROREC_ARTIFACTS", "PYTHONPATH"}}

    def prorec(*words: str) -> str:
        done = subprocess.run(
            [elsewhere, *words], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert prorec("config", "show", "ml-100k").startswith("name: ml-100k\n")
    prorec("run", "demo", *tiny_words(), "--json", "out.json")
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts", "out.json"}
    stages = json.loads((tmp_path / "out.json").read_text())["stages"]
    assert all(str(tmp_path / "artifacts") in str(each) for each in stages)


def test_the_oldest_python_that_is_promised_can_install_every_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = f"{project['requires-python'].removeprefix('>=')}.0"
    asked = {
        each.metadata["Name"]: each.metadata.get("Requires-Python", "") for each in importlib.metadata.distributions()
    }
    assert len(asked) > 100
    assert [name for name, needs in asked.items() if needs and oldest not in SpecifierSet(needs)] == []


def test_what_uv_takes_is_what_was_tested() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["uv"]["constraint-dependencies"] == pins
