"""How the tests are started: what the Makefile hands on to them, and which are first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.conftest import LONGEST

ROOT = Path(__file__).resolve().parents[1]


def test_what_is_compiled_is_kept_whatever_the_environment_says() -> None:
    words = ["make", "--silent", "--eval", "environment: ; @env", "environment"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "GIVEN": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    handed_on = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert "GIVEN" in handed_on and "PYTHONDONTWRITEBYTECODE" not in handed_on


def test_those_that_start_first_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []
