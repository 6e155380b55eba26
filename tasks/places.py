"""Where things are kept: the folder of artifacts, the tracking store, checkpoints, locks.

Knows paths and environment variables; imports neither Prefect nor MLflow.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

ARTIFACTS_VARIABLE = "PROREC_ARTIFACTS"
EMBEDDED_VARIABLE = "PROREC_PREFECT_EMBEDDED"
"""Set where the Prefect server in use lives as long as one process only, and shows no pages."""


def project_root() -> Path:
    """The folder that holds this project's sources, or the working directory where it is an installed copy."""
    beside = Path(__file__).resolve().parents[1]
    return beside if (beside / "pyproject.toml").is_file() else Path.cwd()


def artifacts() -> Path:
    """The folder that runs write to: `PROREC_ARTIFACTS`, by default `artifacts/` in the project."""
    chosen = os.environ.get(ARTIFACTS_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else project_root() / "artifacts"


def store() -> Path:
    """Where MLflow keeps artifacts when no tracking server says otherwise."""
    return artifacts() / "store"


def embedded_tracking_uri() -> str:
    """The SQLite file in the folder of artifacts."""
    return f"sqlite:///{artifacts() / 'mlflow.db'}"


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI` where set, by default the SQLite file in the folder of artifacts."""
    return os.environ.get("MLFLOW_TRACKING_URI") or embedded_tracking_uri()


def tracks_over_http() -> bool:
    """Whether a tracking server, which decides itself where artifacts go, is in use."""
    return urlparse(tracking_uri()).scheme in {"http", "https"}


def nothing_tracked() -> bool:
    """Whether nothing was ever run here, so that there is no use in making a database to look into."""
    path = tracking_uri().removeprefix("sqlite:///")
    return path != tracking_uri() and not Path(path).exists()


def prefect_home() -> Path:
    """Prefect's own folder when no Prefect server is in use."""
    return artifacts() / "prefect"


def references() -> Path:
    """Where Prefect keeps the cached references to artifacts."""
    return prefect_home() / "references"


def locks() -> Path:
    """Where processes that share the folder of artifacts keep the files that they lock."""
    return artifacts() / "locks"


def checkpoints(key: str) -> Path:
    """Where the training stage with this cache key keeps its checkpoints."""
    return artifacts() / "checkpoints" / key


def downloads(digest: str) -> Path:
    """The local copy of an artifact that is kept elsewhere."""
    return artifacts() / "downloads" / digest


def local_path(uri: str) -> Path | None:
    """The path that a URI names on this machine's file system, or None if it is somewhere else."""
    parts = urlparse(uri)
    if parts.scheme == "":
        return Path(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in {"", "localhost"} else None


@contextmanager
def lock(name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock `name` among this machine's processes; the kernel frees it when its holder dies.

    `waiting` is called once if another process holds it.
    """
    locks().mkdir(parents=True, exist_ok=True)
    with (locks() / name).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def output_lock(path: Path) -> str:
    """The name of the lock that whoever writes a file of recommendations holds."""
    return f"recommend-{hashlib.sha256(str(path).encode()).hexdigest()}"


@contextmanager
def try_lock(name: str) -> Iterator[bool]:
    """Hold the lock `name` if no process holds it; says whether that is so."""
    locks().mkdir(parents=True, exist_ok=True)
    with (locks() / name).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
