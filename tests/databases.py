"""The databases of MLflow and Prefect with nothing in them, made once for all workers of a run of the tests.

Knows files and locks, and how either program makes its tables, which takes seconds of processor each time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_PREPARE = "from prorec.tasks.local.databases import prepare_prefect; prepare_prefect()"


def mlflow_database(factory: pytest.TempPathFactory) -> Path:
    """MLflow's, with its tables and its first experiment."""
    return _made_once(factory, "mlflow", _make_mlflow) / "mlflow.db"


def prefect_database(factory: pytest.TempPathFactory) -> Path:
    """Prefect's, with its tables."""
    return _made_once(factory, "prefect", _make_prefect) / "prefect.db"


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker which asks for it fills, while others that do wait."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"empty-{name}"
    with folder.with_suffix(".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not folder.exists():
            begun = folder.with_suffix(".begun")
            shutil.rmtree(begun, ignore_errors=True)
            begun.mkdir()
            make(begun)
            begun.rename(folder)
    return folder


def _make_mlflow(folder: Path) -> None:
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()


def _make_prefect(folder: Path) -> None:
    # In a process of its own: what it imports is a server's, and most workers never need it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", _PREPARE], check=True, env=environment)
