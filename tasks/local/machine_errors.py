"""What a machine may refuse, said as a user's mistake is: one sentence, where, and the cure.

Knows the errors of files, databases and addresses; knows nothing of who tells them. Every one of them has its line in
one table here; what stands in none is an error of the program and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from prorec.tasks.local import paths
from prorec.tasks.local.disk_space import full_disk
from prorec_core.errors import MachineError, UserError, causes
from prorec_core.training.trouble import of_device

_BY_NUMBER = {
    errno.EACCES: ("access is denied", "Have its owner give you the right to it, or choose another place"),
    errno.EPERM: ("access is denied", "Have its owner give you the right to it, or choose another place"),
    errno.EROFS: ("it cannot be written: the file system is read-only", "Choose another place"),
    errno.ENOTDIR: ("a file stands where a folder is expected", "Choose another place, or move the file away"),
    errno.EEXIST: ("a file stands where a folder is expected", "Choose another place, or move the file away"),
    errno.EISDIR: ("a folder stands where a file is expected", "Choose another place"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "Choose a shorter one"),
    errno.ELOOP: ("its symbolic links lead in a circle", "Choose another place"),
    errno.EMFILE: ("too many files are open", "Raise the limit (`ulimit -n 4096`)"),
    errno.EIO: ("the disk cannot be read or written", "Look at the disk; the system's log says more"),
}
"""By an OSError's number the sentence and the cure."""

BACKUP = "Restore a backup of it, or move it away to begin anew"
_BY_SQLITE = (
    ("file is not a database", ("it is no database", BACKUP)),
    ("malformed", ("the database is damaged", BACKUP)),
    ("could not decode to utf-8", ("the database is damaged", BACKUP)),
    ("disk i/o error", ("the disk cannot be read or written", "Look at its room and its state, then try again")),
    ("unable to open database file", ("the database cannot be opened", "Look at its folder and who may write there")),
    ("readonly database", ("the database cannot be written", "Look at who may write to it and to its folder")),
    ("authorization denied", ("the database cannot be opened", "Look at its folder and who may write there")),
    ("database is locked", ("another program holds the database", "Wait for its end, then try again")),
    ("already exists", ("its tables are only half made", BACKUP)),
    ("no such table", ("its tables are not MLflow's of this version", BACKUP)),
    ("no such column", ("its tables are not MLflow's of this version", BACKUP)),
)
"""By words of SQLite the sentence and the cure."""

_DRIVERS = ("psycopg", "psycopg2", "pymysql", "MySQLdb", "pyodbc", "pymssql")
_URI = "MLFLOW_TRACKING_URI"
_URI_CURE = "Set it to http://HOST:PORT, sqlite:////ABSOLUTE/FILE.db or postgresql+psycopg2://…, or unset it"


def explained(error: BaseException) -> UserError | None:
    """What refused, in one line, or None where the error is one of the program.

    The cause that says most is the first in the chain of causes that stands in a table. A full disk is told before all
    else, whatever else was made of it; other lines for the user stay as they are.
    """
    if full := full_disk(error):
        return full
    if isinstance(error, UserError):
        return error
    for cause in causes(error):
        for explain in _EXPLAINERS:
            if (found := explain(cause)) is not None:
                return MachineError(found.problem, place=found.place, cure=found.cure)
    return None


def database() -> str:
    """The database of the tracking store as a user knows it: the file, or the address without its password."""
    return paths.shown_uri(paths.tracking_uri())


def _refused_by_system(error: BaseException) -> UserError | None:
    if not isinstance(error, OSError):
        return None
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else ""
    if error.errno == errno.ENOENT and name and _concerns_artifacts(Path(name)):
        cure = "Look at PROREC_ARTIFACTS, and whether another program deletes there"
        return UserError("it is not there and cannot be made", place=name, cure=cure)
    if error.errno not in _BY_NUMBER:
        return None
    problem, cure = _BY_NUMBER[error.errno]
    if name:
        return UserError(problem, place=name, cure=cure)
    return UserError(problem, cure=cure) if error.errno == errno.EMFILE else None


def _concerns_artifacts(path: Path) -> bool:
    return path.is_relative_to(paths.artifacts()) or paths.artifacts().is_relative_to(path)


def _refused_by_sqlite(error: BaseException) -> UserError | None:
    if not isinstance(error, sqlite3.Error):
        return None
    return of_sqlite(error, database())


def of_sqlite(error: sqlite3.Error, place: str) -> UserError | None:
    """What an error of SQLite's about the database `place` means."""
    said = str(error).lower()
    for words, (problem, cure) in _BY_SQLITE:
        if words in said:
            return UserError(problem, place=place, cure=cure)
    return None


def _refused_by_database(error: BaseException) -> UserError | None:
    """SQLAlchemy's own errors, and those of drivers that it carries; imports neither."""
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if kinds & {"sqlalchemy.exc.ArgumentError", "sqlalchemy.exc.NoSuchModuleError"}:
        return UserError(f"it names no tracking store ({_first_line(error)})", place=_URI, cure=_URI_CURE)
    if isinstance(error, ModuleNotFoundError) and error.name in _DRIVERS:
        return UserError(
            f"the driver of this database, {error.name}, is not installed",
            place=f"{_URI} {database()}",
            cure="Install it, or name another, as in postgresql+psycopg2:// (`pip install 'prorec[servers]'` has it)",
        )
    if kinds & {f"{driver}.{name}" for driver in _DRIVERS for name in ("OperationalError", "err.OperationalError")}:
        return UserError(
            f"the database does not answer ({_first_line(error)})",
            place=f"{_URI} {database()}",
            cure="Start it, or put the address right",
        )
    return None


def _refused_by_mlflow(error: BaseException) -> UserError | None:
    if type(error).__name__ not in {
        "MlflowException",
        "InvalidUrlException",
        "UnsupportedModelRegistryStoreURIException",
    }:
        return None
    said = str(error)
    if "out-of-date database schema" in said:
        uri = paths.tracking_uri()
        shown = uri if paths.sqlite_path(uri) is not None else "its URI"
        cure = f"Back it up, then `mlflow db upgrade {shown}`, or use the version that made it"
        return UserError("its tables are of another version of MLflow", place=database(), cure=cure)
    if any(words in said for words in ("unsupported URI", "Invalid database URI", "Invalid url")):
        # MLflow quotes the whole address, and a password in it.
        return UserError("it names no tracking store", place=_URI, cure=_URI_CURE)
    return None


_SETTINGS = ("prefect.settings", "pydantic_settings", "dotenv")
"""The packages that read Prefect's settings: variables, `.env`, prefect.toml, pyproject.toml and profiles."""


def _refused_by_settings(error: BaseException) -> UserError | None:
    """An error while Prefect's settings were read, with the file or the variable that is to blame."""
    if not any(name.startswith(_SETTINGS) for name in _modules(error)):
        return None
    cure = "Put it right, or take it away"
    if isinstance(error, UnicodeDecodeError):
        return UserError("the file is not UTF-8", place=str(Path(".env").absolute()), cure=cure)
    kind, said = type(error).__name__, _first_line(error)
    if kind == "SettingsError":
        return UserError(f"Prefect's settings cannot be read ({said})", place=str(Path.cwd()), cure=cure)
    if kind != "ValidationError" or not callable(details := getattr(error, "errors", None)):
        return None
    first = details()[0]
    field = ".".join(map(str, first["loc"]))
    said = f"Prefect's setting '{field}': {first['msg']}" if field else f"Prefect's settings: {first['msg']}"
    return UserError(said, place=_setter_of(field.split(".")[-1]), cure=cure)


def _setter_of(field: str) -> str:
    """What sets a field of Prefect's settings: a variable, or a file of the working folder."""
    ending = f"_{field}".upper()
    for name in os.environ if field else ():
        if name.startswith("PREFECT_") and name.endswith(ending):
            return name
    for file in map(Path, (".env", "prefect.toml", "pyproject.toml")):
        if field and file.is_file() and field.lower() in file.read_text(errors="replace").lower():
            return str(file.absolute())
    return "the settings of Prefect (`prefect config view` shows them)"


def _modules(error: BaseException) -> Iterable[str]:
    trace = error.__traceback__
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next


_EXPLAINERS: tuple[Callable[[BaseException], UserError | None], ...] = (
    _refused_by_system,
    _refused_by_sqlite,
    _refused_by_database,
    _refused_by_mlflow,
    _refused_by_settings,
    of_device,
)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:200] if lines else type(error).__name__
