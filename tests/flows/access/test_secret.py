"""The file with the stack's password: made once, whole, and read by its owner alone."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prorec.flows.access import secret
from prorec_core.errors import UserError


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory(prefix="prorec-secret-") as name:
        Path(name).chmod(0o755)
        made = Path(name) / "stack"
        made.mkdir()
        yield made


def test_it_is_made_once_and_for_its_owner_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        assert secret.ensure(folder)
    finally:
        os.umask(before)
    first = secret.read(folder)
    assert len(first) >= 32 and stat.S_IMODE(secret.file(folder).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not secret.ensure(folder) and secret.read(folder) == first
    assert secret.ensure(folder, new=True) and secret.read(folder) != first
    assert [path.name for path in folder.iterdir()] == ["secret"]


def test_what_others_may_have_read_is_made_anew(folder: Path) -> None:
    secret.ensure(folder)
    first = secret.read(folder)
    secret.file(folder).chmod(0o640)
    assert secret.ensure(folder) and secret.read(folder) != first
    assert stat.S_IMODE(secret.file(folder).stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "\n", "short", "x" * 32 + " y", "é" * 40])
def test_half_a_password_is_none(folder: Path, text: str) -> None:
    secret.file(folder).write_text(text)
    secret.file(folder).chmod(0o600)
    with pytest.raises(UserError, match="cannot be read"):
        secret.read(folder)
    assert secret.ensure(folder) and secret.read(folder)


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    (folder / ".secret-abc").write_text("half")
    secret.ensure(folder)
    assert [path.name for path in folder.iterdir()] == ["secret"]


def test_a_link_is_not_followed(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.write_text("x" * 40)
    elsewhere.chmod(0o600)
    secret.file(folder).symlink_to(elsewhere)
    assert secret.ensure(folder) and not secret.file(folder).is_symlink() and elsewhere.read_text() == "x" * 40


def test_somebody_else_cannot_read_it(folder: Path, stranger: Callable[..., str]) -> None:
    read = """
for path in sys.argv[1:]:
    try:
        print("read", len(Path(path).read_text()))
    except OSError as error:
        print(type(error).__name__)
"""
    (folder.parent / "public").write_text("seen")
    secret.ensure(folder)
    assert stranger(read, str(folder.parent / "public"), str(secret.file(folder))).split("\n")[:2] == [
        "read 4",
        "PermissionError",
    ]
    # Not only for the folder's sake.
    folder.chmod(0o755)
    assert stranger(read, str(secret.file(folder))) == "PermissionError\n"
