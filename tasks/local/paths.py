"""Where things are kept: the folder of artifacts, the tracking store, checkpoints, locks.

Knows paths and environment variables; imports neither Prefect nor MLflow.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlparse

import prorec
from prorec.tasks.local.waiting import Waiting
from prorec_core.errors import UserError

ARTIFACTS_VARIABLE = "PROREC_ARTIFACTS"
EMBEDDED_VARIABLE = "PROREC_PREFECT_EMBEDDED"
"""Set where the Prefect server in use lives as long as one process only, and shows no pages."""

APART_VARIABLE = "PROREC_PREFECT_APART"
"""Set where this process has a Prefect server of its own, and whoever gave it its work has another."""

_PREFECT_DATABASE = tuple(
    f"PREFECT_{part}_DATABASE_{name}" for name in ("CONNECTION_URL", "DRIVER", "HOST") for part in ("SERVER", "API")
)
_PAUSE = 0.1
"""Seconds between two looks at a lock that another process holds."""

_OTHER_TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".gz", ".zip")
_LARGEST_JSON = 64 << 20
"""Bytes of the longest file that a command may have written as JSON."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SQLITE = ("sqlite", "sqlite+pysqlite", "sqlite+aiosqlite")


def project_root() -> Path:
    """The folder that holds this project's sources, or the working directory where it is an installed copy."""
    beside = Path(prorec.__file__).resolve().parents[1]
    return beside if (beside / "pyproject.toml").is_file() else Path.cwd()


def installed(name: str) -> Path:
    """A file or folder that comes with this software and is no Python: `configs`, `prefect.yaml`."""
    return Path(prorec.__file__).resolve().parent / name


def artifacts() -> Path:
    """The folder that runs write to: `PROREC_ARTIFACTS`, by default `artifacts/` in the project.

    Raises:
        UserError: it cannot be a folder that databases are in.
    """
    chosen = os.environ.get(ARTIFACTS_VARIABLE)
    if not chosen:
        return project_root() / "artifacts"
    try:
        folder = Path(chosen).expanduser().absolute()
        str(folder).encode()
    except RuntimeError as error:
        raise UserError("there is no such user", place=f"{ARTIFACTS_VARIABLE} {chosen}") from error
    except UnicodeEncodeError as error:
        name = os.fsencode(chosen).decode(errors="backslashreplace")
        raise UserError(
            "the name is not UTF-8", place=f"{ARTIFACTS_VARIABLE} {name}", cure="Choose another folder"
        ) from error
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        problem = "this is a file" if there == folder else f"{there} is no folder"
        raise UserError(problem, place=f"{ARTIFACTS_VARIABLE} {folder}", cure="Name a folder")
    return folder


def store() -> Path:
    """Where MLflow keeps artifacts when no tracking server says otherwise."""
    return artifacts() / "store"


def embedded_tracking_uri() -> str:
    """The SQLite file in the folder of artifacts."""
    return sqlite_uri(artifacts() / "mlflow.db")


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI` where set, by default the SQLite file in the folder of artifacts.

    Raises:
        UserError: what is set names no store.
    """
    chosen = os.environ.get("MLFLOW_TRACKING_URI")
    if not chosen:
        return embedded_tracking_uri()
    if _has_login(chosen):
        raise UserError(
            "it holds a user or a password, which links and logs would repeat",
            place=f"MLFLOW_TRACKING_URI {shown_uri(chosen)}",
            cure="Leave them out of it, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
    if problem := _no_store(chosen):
        raise UserError(
            f"it names no tracking store: {problem}",
            place=f"MLFLOW_TRACKING_URI {shown_uri(chosen)}",
            cure="Set it to http://HOST:PORT, sqlite:////ABSOLUTE/FILE.db or postgresql+psycopg2://…, or unset it",
        )
    return chosen


def _has_login(uri: str) -> bool:
    """Whether the address of a server holds a user or a password, written rightly or not."""
    scheme, _, rest = uri.partition("://")
    host, *more = re.split(r"[/?#]", rest, maxsplit=1)
    # Where a password has a slash that is not quoted, it begins where the port would be.
    cut = "@" in "".join(more) and re.search(r":(?![0-9]*$)[^\]]*$", host)
    return scheme.lower() in {"http", "https"} and ("@" in host or bool(cut))


def _no_store(uri: str) -> str:
    """Why a URI cannot be a tracking store's; nothing where it can."""
    if sqlite_path(uri) is not None:
        return ""
    try:
        parts = urlparse(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme in {"http", "https"}:
        return "" if host and re.fullmatch(r"[^\s/]+", host) else "no host"
    kind = parts.scheme.partition("+")[0]
    if kind in _DATABASES:
        return "" if uri.startswith(f"{parts.scheme}://") else f"'{parts.scheme}:' is to be followed by //"
    return f"'{parts.scheme}:' is none that is known" if parts.scheme else "it begins with no kind, as http:"


def tracks_over_http() -> bool:
    """Whether a tracking server, which decides itself where artifacts go, is in use."""
    return urlparse(tracking_uri()).scheme in {"http", "https"}


def nothing_tracked() -> bool:
    """Whether nothing was ever run here, so that there is no use in making a database to look into."""
    path = sqlite_path(tracking_uri())
    return path is not None and not path.exists()


def sqlite_uri(path: Path, driver: str = "") -> str:
    """The URI of an SQLite file for SQLAlchemy, which reads `%` and `?` in it as URLs have them.

    Where the name has to be quoted the driver is named: MLflow makes the folder that a URI without one spells, quotes
    and all.
    """
    quoted = quote(str(path))
    driver = driver or ("" if quoted == str(path) else "pysqlite")
    return f"sqlite{'+' if driver else ''}{driver}:///{quoted}"


def sqlite_path(uri: str) -> Path | None:
    """The file that `sqlite_uri` or a user made this URI of; None if it is no SQLite file's."""
    scheme, _, rest = uri.partition(":///")
    name = _unquote(rest.partition("?")[0])
    return Path(name) if scheme in _SQLITE and name and not name.startswith((":memory:", "file:")) else None


def shown_uri(uri: str) -> str:
    """A URI as people may read it: the path where it is an SQLite file's, and never a password."""
    path = sqlite_path(uri)
    if path is not None:
        return str(path)
    scheme, found, rest = uri.partition("://")
    return f"{scheme}{found}{rest.partition('?')[0].rpartition('@')[2]}"


def _unquote(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))


def prefect_home() -> Path:
    """Prefect's own folder when no Prefect server is in use."""
    return artifacts() / "prefect"


def prefect_environment(home: Path) -> dict[str, str]:
    """What has a Prefect server keep all that is its own in this folder."""
    found = {"PREFECT_HOME": str(home)}
    uri = sqlite_uri(home / "prefect.db", "aiosqlite")
    # Prefect makes a URL of the folder without quoting it. A database that the user chose is another matter.
    if uri != f"sqlite+aiosqlite:///{home}/prefect.db" and not any(name in os.environ for name in _PREFECT_DATABASE):
        found[_PREFECT_DATABASE[0]] = uri
    return found


def references() -> Path:
    """Where Prefect keeps the cached references to artifacts."""
    return prefect_home() / "references"


def locks() -> Path:
    """Where processes that share the folder of artifacts keep the files that they lock."""
    return artifacts() / "locks"


def recommendations(name: str, version: int | str) -> Path:
    """Where the recommendations of a version of a model are written unless another file is named."""
    return artifacts() / "recommendations" / f"{name}-{version}.parquet"


def work(key: str) -> Path:
    """Where the stage with this cache key makes its artifact."""
    return artifacts() / "work" / key


def checkpoints(key: str) -> Path:
    """Where the training stage with this cache key keeps its checkpoints."""
    return artifacts() / "checkpoints" / key


def studies() -> Path:
    """Where the trials of tunings are kept, a file a study."""
    return artifacts() / "studies"


def snapshots() -> Path:
    """Where rows that a database gave are kept."""
    return artifacts() / "snapshots"


def downloads(digest: str) -> Path:
    """The local copy of an artifact that is kept elsewhere."""
    return artifacts() / "downloads" / digest


def file_uri(path: Path) -> str:
    """A path as MLflow takes it: it unquotes those that have no scheme, too, so odd ones become URLs."""
    return str(path) if quote(str(path)) == str(path) else path.as_uri()


def local_path(uri: str) -> Path | None:
    """The path that a URI names on this machine's file system, or None if it is somewhere else."""
    parts = urlparse(uri)
    if parts.scheme == "":
        return Path(uri)
    return Path(_unquote(parts.path)) if parts.scheme == "file" and parts.netloc in {"", "localhost"} else None


def expect_output(file: Path, place: str, inputs: Iterable[str | Path] = (), *, parquet: bool = False) -> None:
    """Refuse a file that cannot be written, or in whose place something else stands, before any work is done for it.

    Args:
        file: what is to be written, JSON or Parquet.
        place: the file in words, for the message.
        inputs: what the same command reads; what is no file counts for nothing.
        parquet: it is to be Parquet.

    Raises:
        UserError: its folder is not there or cannot be written, its name is a folder's, a device's or that of another
            kind of file, it is one of the inputs, or what stands there is no file of its kind.
    """
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UserError("the folder does not exist", place=place, cure="Make it first")
    # It is written beside and renamed, which would put a file in the place of a device.
    if file.exists() and not file.is_file():
        raise UserError(f"this is {'a folder' if file.is_dir() else 'a device'}", place=place, cure="Name a file")
    if not os.access(folder, os.W_OK):
        raise UserError("the folder cannot be written", place=place, cure="Choose another")
    if parquet and file.suffix.lower() in _OTHER_TABLES:
        raise UserError("lists are written as Parquet", place=place, cure="Name a file that ends in .parquet")
    if not file.exists():
        return
    for given in map(Path, inputs):
        if given.exists() and file.samefile(given):
            raise UserError("this file is read, and would be lost", place=place, cure="Name another one")
    if not (_is_parquet(file) if parquet else _is_json(file)):
        kind = "Parquet" if parquet else "JSON"
        raise UserError(
            f"a file that is no {kind} stands there, and would be lost", place=place, cure="Name another one"
        )


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) in {b"", b"PAR1"}


def _is_json(file: Path) -> bool:
    """Whether a file holds what commands write, an object, or nothing at all."""
    if file.stat().st_size > _LARGEST_JSON:
        return False
    try:
        return isinstance(json.loads(file.read_bytes() or b"{}"), dict)
    except (ValueError, RecursionError):
        return False


@contextmanager
def lock(name: str, waiting: Callable[[float], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock `name` among this machine's processes; the kernel frees it when its holder dies.

    While another process holds it, `waiting` is given the seconds so far: at once, and then ever more seldom.
    """
    locks().mkdir(parents=True, exist_ok=True)
    told = Waiting(waiting)
    with (locks() / name).open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                told()
                time.sleep(_PAUSE)
        yield


def output_lock(path: Path) -> str:
    """The name of the lock that whoever writes a file of recommendations holds."""
    import hashlib

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
