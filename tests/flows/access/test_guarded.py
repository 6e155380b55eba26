"""The servers of several machines: they do not start where nobody would be asked who he is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOORS = ["--host", "127.0.0.1", "--port", "1", "--allowed-hosts", "127.0.0.1:1"]
STORES = ["--backend-store-uri", "sqlite://", "--artifact-root", "none"]


@pytest.mark.parametrize(
    ("words", "given", "missing"),
    [
        (["prefect", *DOORS], {}, "PREFECT_SERVER_API_AUTH_STRING"),
        (["prefect", *DOORS], {"PREFECT_SERVER_API_AUTH_STRING": ""}, "PREFECT_SERVER_API_AUTH_STRING"),
        (["mlflow", *DOORS, *STORES], {}, "MLFLOW_TRACKING_USERNAME"),
        (["mlflow", *DOORS, *STORES], {"MLFLOW_TRACKING_USERNAME": "prorec"}, "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_no_server_without_a_password(words: list[str], given: dict[str, str], missing: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith(("AUTH_STRING", "PASSWORD"))}
    done = subprocess.run(
        [sys.executable, "-m", "prorec.flows.access.guarded", *words],
        env={**environment, **given},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (f"prorec: {missing}: it is not set. The server asks for it: without, it would ask nobody.\n")
