"""What servers ask for: a user and a password; that of the local stack is in one file that its owner alone can read.

Knows that file and the variables in which Prefect and MLflow look for what it holds; imports nothing that takes time.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from uuid import uuid4

from prorec_core.errors import UserError

USER = "prorec"
PREFECT_ASKS = "PREFECT_SERVER_API_AUTH_STRING"
"""What Prefect's server asks for, as `USER:PASSWORD`."""

PREFECT_GIVES = "PREFECT_API_AUTH_STRING"
"""What its clients give."""

MLFLOW_USER, MLFLOW_PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"

_PASSWORD = re.compile(r"[\w-]{32,}")


RAY = "ray-token"
"""The name of the file with what the stack's Ray cluster asks for."""


def file(folder: Path, name: str = "secret") -> Path:
    """Where the password of the stack in this folder is, or what else it asks for, by name."""
    return folder / name


def fresh() -> str:
    """A password that nobody guesses."""
    import secrets

    return secrets.token_urlsafe(32)


def ensure(folder: Path, name: str = "secret", *, new: bool = False) -> bool:
    """Have there be a password that nobody else can have read; the caller holds the folder's lock.

    Args:
        folder: the stack's.
        name: of its file.
        new: make another than the one that is there.

    Returns:
        Whether it was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = file(folder, name)
    if not new and _is_private(path) and _read(path):
        return False
    for left in folder.glob(f".{path.name}-*"):
        left.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(f"{fresh()}\n")
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return True


def read(folder: Path) -> str:
    """The password.

    Raises:
        UserError: it is not there.
    """
    if password := _read(file(folder)):
        return password
    raise UserError(
        "the password of the stack that is up cannot be read",
        place=str(file(folder)),
        cure="`prorec down` and `prorec up` make a new one",
    )


def for_prefect(password: str) -> dict[str, str]:
    """What has clients of Prefect give it."""
    return {PREFECT_GIVES: f"{USER}:{password}"}


def for_prefect_server(password: str) -> dict[str, str]:
    """What has a server of Prefect ask for it."""
    return {PREFECT_ASKS: f"{USER}:{password}"}


def for_mlflow(password: str) -> dict[str, str]:
    """What has clients of MLflow give it."""
    return {MLFLOW_USER: USER, MLFLOW_PASSWORD: password}


def _read(path: Path) -> str:
    try:
        found = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return found if _PASSWORD.fullmatch(found) else ""


def _is_private(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
