"""How a program that trains starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prorec.flows.cli import app
from prorec.flows.local.running import TRAINING, write_output
from prorec_core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


class StartedAgainError(Exception):
    """It would be another program now."""


@pytest.mark.parametrize("words", [("run", "x"), ("compare", "x"), ("tune", "x"), ("rerun", "--stage", "x")])
def test_it_starts_again_before_it_reads_anything(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object) -> None:
        raise StartedAgainError

    monkeypatch.setattr(os, "confstr", lambda _: "glibc")
    monkeypatch.setattr(os, "execve", again)
    for name in TRAINING:
        monkeypatch.delenv(name, raising=False)
    assert isinstance(CliRunner().invoke(app, words).exception, StartedAgainError)


def test_which_stages_there_are_is_known_without_what_trains() -> None:
    script = "import sys; import prorec.tasks.stages.pipeline; print({'torch', 'mlflow', 'prefect'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"


def test_a_result_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """What stands there may change, or the disk fill, while the work is done."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--json .*file/x\.json: it cannot be written \(.*Name another file"):
        write_output("--json", tmp_path / "file" / "x.json", {})
    write_output("--json", tmp_path / "x.json", {})
    assert (tmp_path / "x.json").is_file()
    write_output("--json", None, {})
