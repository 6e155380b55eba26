"""What tests share: a folder of artifacts of their own, a planted data set whose answers are known, the real data.

Tests need no network and leave nothing behind; those on real data are skipped where it is absent.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from prorec.flows.local.importing import kept_for_good
from prorec_core.data.sequences import Sequences, from_lists
from tests import databases

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("PROREC_DATA", ROOT.parent / "shared" / "data"))
CHECKERBOARD_ITEMS = 24
_SERVERS = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "PREFECT_API_URL", "PREFECT_HOME")
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MPLBACKEND": "Agg",
}
LONGEST = (
    "flows/stack/test_life_cycle.py",
    "flows/test_cli.py",
    "deploy/test_stack.py",
    "tasks/execution/test_kill.py",
    "flows/test_compare.py",
    "flows/stack/test_pages.py",
    "flows/test_recipes.py",
    "tasks/local/test_full_disk.py",
    "flows/test_tune.py",
    "docsite/test_quickstart.py",
)
"""Files of the tests in the order in which they start, by how long they take alone."""
_MEMORY_OF_A_WORKER = 3 << 30
"""Bytes, with the processes that its tests start."""
_folders: list[str] = []
# How long an example takes says more of the machine than of the code.
settings.register_profile("prorec", deadline=None)
settings.load_profile("prorec")


def pytest_configure() -> None:
    """Before any import reads them: point every store to a folder of this run, and turn the network off."""
    for name in _SERVERS:
        os.environ.pop(name, None)
    os.environ.update(_QUIET)
    # Tensors of tests are small: threads that wait for each other cost more than they do.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    threadpool_limits(int(os.environ["OMP_NUM_THREADS"]))  # NumPy is loaded already, and has read no variable.
    _folders.append(tempfile.mkdtemp(prefix="prorec-tests-"))
    os.environ["PROREC_ARTIFACTS"] = _folders[0]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported for the tests stays: nobody looks through it for what is not needed, now or later."""
    with kept_for_good():
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two a core, as far as memory lasts: tests wait for servers and other processes most of the time."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(2 * cores, memory // _MEMORY_OF_A_WORKER))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then others that run whole stages: a long one that starts last is waited for alone."""
    long = {item.path for item in items if item.get_closest_marker("pipeline")}
    longest = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (longest.get(item.path, len(longest)), item.path not in long))


def pytest_unconfigure() -> None:
    """Remove that folder."""
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_tracking_server() -> Iterator[None]:
    """Have every test begin and end without one: MLflow writes the store that it is told of into the environment."""
    _forget_tracking()
    yield
    _forget_tracking()


def _forget_tracking() -> None:
    for name in _SERVERS:
        if name.startswith("MLFLOW_"):
            os.environ.pop(name, None)


@pytest.fixture
def artifacts_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of artifacts for one test alone, in force through `PROREC_ARTIFACTS`."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    monkeypatch.setenv("PROREC_ARTIFACTS", str(folder))
    return folder


@pytest.fixture(scope="session")
def begin_store(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Callable[[Path], None]:
    """Puts both empty databases where a folder of artifacts, which need not be there yet, has them."""

    def begin(artifacts: Path) -> None:
        (artifacts / "prefect").mkdir(parents=True)
        shutil.copyfile(empty_database, artifacts / "mlflow.db")
        shutil.copyfile(databases.prefect_database(tmp_path_factory), artifacts / "prefect" / "prefect.db")

    return begin


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables with nothing in them."""
    return databases.mlflow_database(tmp_path_factory)


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server that all tests share, and this process's settings pointing to it.

    To start one takes seconds of processor: whatever runs flows and is not about servers takes this one.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )

    from prorec.flows.access import secret
    from prorec.flows.local.prefect_server import LocalServer

    home = tmp_path_factory.mktemp("prefect")
    shutil.copyfile(databases.prefect_database(tmp_path_factory), home / "prefect.db")
    os.environ["PREFECT_HOME"] = str(home)
    server = LocalServer(home / "server.log")
    try:
        server.wait()
        # For processes that tests start.
        os.environ.update(secret.for_prefect(server.password))
        settings = {
            PREFECT_API_URL: server.url,
            PREFECT_API_AUTH_STRING: os.environ["PREFECT_API_AUTH_STRING"],
            PREFECT_HOME: home,
            PREFECT_LOGGING_TO_API_ENABLED: False,
            # A flow waits up to a second for the thread that sends them.
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        }
        with temporary_settings(settings):
            yield server.url
    finally:
        server.stop()
        for name in ("PREFECT_HOME", *secret.for_prefect("")):
            os.environ.pop(name, None)


@pytest.fixture(scope="session")
def checkerboard() -> Sequences:
    """96 users on a board of 24 items in two colours: even items and odd ones.

    A user starts somewhere and walks along one colour: after item i comes `(i + 2) % 24`, and nobody meets an
    item twice. So the next item is `(last + 2) % 24`, a model that learns this has recall 1 at rank 1, and
    popularity knows nothing: every item is as frequent as any other.
    """
    walks = [
        (start + 2 * np.arange(length, dtype=np.int32)) % CHECKERBOARD_ITEMS
        for start in range(CHECKERBOARD_ITEMS)
        for length in (5, 6, 8, 10)
    ]
    return from_lists(walks, CHECKERBOARD_ITEMS)


@pytest.fixture(scope="session")
def beauty_folder() -> Path:
    """The Amazon Beauty tables: interactions.parquet and items.parquet."""
    return _real("amazon-beauty")


@pytest.fixture(scope="session")
def ml_100k_folder() -> Path:
    """The MovieLens 100K atomic files: ml-100k.inter, ml-100k.item and ml-100k.user."""
    return _real("ml-100k")


def _real(name: str) -> Path:
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not in {REAL_DATA} (PROREC_DATA names another folder)")
    return folder
