"""What tests of the programs share: somebody else on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

_NOBODY = 65534
_BECOME = f"""
import http.client, json, os, sys
from pathlib import Path
os.setgroups([]); os.setgid({_NOBODY}); os.setuid({_NOBODY})
"""


@pytest.fixture(scope="session")
def stranger() -> Callable[..., str]:
    """Runs a Python script as another user of this machine, who has no rights; gives what it prints."""
    if os.getuid() != 0:
        pytest.skip("only root becomes another user")

    def run(script: str, *words: str) -> str:
        # It becomes nobody by itself: the interpreter may lie where nobody may look.
        command = [sys.executable, "-c", _BECOME + script, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
