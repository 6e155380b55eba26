"""The SQLite files of MLflow and Prefect: each is there whole, with the tables of this version, or not there at all.

Knows how tables are made and brought up to date, and that a process may be killed at any moment of it; knows nothing of
runs. Tables are made in a file beside, which takes the database's name when all of them are there. An older database is
copied, the copy is brought up to date and written back in one transaction of SQLite's: whoever has the file open sees
what was or what is. Imports MLflow and Prefect when first used.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prorec.tasks.local import addresses, machine_errors, paths
from prorec_core.artifacts import sync
from prorec_core.errors import UserError, causes

if TYPE_CHECKING:
    from alembic.config import Config

_MAGIC = b"SQLite format 3\0"
_SIDES = ("-journal", "-wal", "-shm")
_TRIES = 5
_BUSY_SECONDS = 60.0
_SECONDS_TO_CONNECT = 10
_HALF_MADE = ("already exists", "duplicate column", "no such table", "no such column", "no such index")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tables:
    """What a program keeps in an SQLite file.

    Attributes:
        owner: the program.
        revisions: the states of its tables that this version knows, the newest first.
        make: makes them in a file that nobody else uses, or brings them up to date.
        work: queries whose first value is above zero where the file holds somebody's work.
    """

    owner: str
    revisions: Callable[[], list[str]]
    make: Callable[[Path], None]
    work: tuple[str, ...]


def prepare_mlflow(uri: str) -> None:
    """Have MLflow's database, if it is an SQLite file, be whole, of this version, and know where its files are.

    Raises:
        UserError: it is damaged, of another version, or of a folder whose files are elsewhere; nothing was changed.
    """
    path = paths.sqlite_path(uri)
    if path is not None and not _is_ready(path.absolute(), MLFLOW):
        with _alone(path):
            _prepare(path.absolute(), MLFLOW)
            with _opened(path) as database:
                addresses.follow(database, path.absolute())


def expect_answer(uri: str) -> None:
    """Ask a database server, if the store is one, once; MLflow asks for minutes, with a traceback each time.

    Raises:
        Exception: what SQLAlchemy or the database's driver raises where it does not answer.
    """
    if paths.sqlite_path(uri) is not None or uri.startswith(("http:", "https:")):
        return
    import sqlalchemy

    waits = {"connect_timeout": _SECONDS_TO_CONNECT} if uri.startswith(("postgresql", "mysql")) else {}
    engine = sqlalchemy.create_engine(uri, connect_args=waits)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def prepare_prefect() -> None:
    """Have the database of this process's Prefect settings, if it is an SQLite file, be whole and of this version.

    Raises:
        UserError: it is damaged, or of another version; nothing was changed.
    """
    from prefect.settings import get_current_settings

    setting = get_current_settings().server.database.connection_url
    path = paths.sqlite_path(setting.get_secret_value()) if setting else None
    if path is not None and not _is_ready(path.absolute(), PREFECT):
        with _alone(path):
            _prepare(path.absolute(), PREFECT)


def problems(path: Path) -> list[str]:
    """What SQLite finds wrong in a file, one sentence each; empty when all is well, and where there is no file."""
    if not path.exists():
        return []
    try:
        _expect_whole(path)
        with _opened(path) as database:
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check(5)")]
    except UserError as error:
        return [str(error)]
    return [f"{path}: {line}" for line in found if line != "ok"]


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the right to prepare a database among this machine's processes, whatever their folder of artifacts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _is_ready(path: Path, tables: Tables) -> bool:
    """Whether nothing is to be done to a database, which whoever may only read it can use."""
    if not path.is_file() or _scratch_of(path).exists():
        return False
    _expect_whole(path)
    with _opened(path) as database:
        if state(database)[0] != tables.revisions()[0]:
            return False
        return tables is not MLFLOW or addresses.former(database, path) is None


def _prepare(path: Path, tables: Tables) -> None:
    # What a killed process left.
    _remove(_scratch_of(path))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if tables is MLFLOW and has_artifacts(path):
            _log.warning("%s is not there and is begun anew: what is stored beside it belongs to no run", path)
        with _scratch(path) as scratch:
            tables.make(scratch)
            _settle(scratch)
            # What is left of one that was moved away must not be taken for a part of this one.
            for side in _SIDES:
                path.with_name(f"{path.name}{side}").unlink(missing_ok=True)
            scratch.replace(path)
            sync(path.parent)
        return
    _expect_whole(path)
    for _ in range(_TRIES):
        with _opened(path) as database:
            revision, empty = state(database)
            if revision is not None and revision == tables.revisions()[0]:
                return
            if empty and tables is MLFLOW and has_artifacts(path):
                raise UserError(
                    "the database is empty, and there are artifacts beside it",
                    place=str(path),
                    cure="Restore a backup of it, or move it and the artifacts away to begin anew",
                )
            if revision is not None and revision not in tables.revisions():
                raise UserError(
                    f"its tables are of a newer version of {tables.owner}, or another program's",
                    place=str(path),
                    cure="Use the version that made it, or restore a backup from before",
                )
            with _scratch(path) as scratch:
                if _bring_up(database, path, scratch, tables, new=empty):
                    return
    raise UserError("its tables cannot be brought up to date while others write to it", place=str(path))


def _bring_up(database: sqlite3.Connection, path: Path, scratch: Path, tables: Tables, *, new: bool) -> bool:
    """Give a database the tables of this version; says whether nobody wrote to it meanwhile, so that it is done."""
    before = _version(database)
    if new:
        tables.make(scratch)
    else:
        _copy(database, scratch)
        try:
            tables.make(scratch)
        except Exception as error:
            if not _met_what_is_there(error):
                raise
            _expect_nothing_lost(database, path, tables, error)
            aside = _aside(path)
            _remove(scratch)
            _copy(database, scratch)
            _settle(scratch)
            scratch.rename(aside)
            _log.warning("%s was left half made and is begun anew; what was there is %s", path, aside.name)
            tables.make(scratch)
        else:
            _log.warning("%s has the tables of this version of %s now", path, tables.owner)
    _settle(scratch)
    if _version(database) != before:
        return False
    with _opened(scratch) as made:
        made.backup(database)
    return True


def _met_what_is_there(error: Exception) -> bool:
    """Whether tables could not be brought up to date since they are not those that their revision tells of."""
    return any(
        isinstance(cause, sqlite3.OperationalError) and any(words in str(cause) for words in _HALF_MADE)
        for cause in causes(error)
    )


def _expect_nothing_lost(database: sqlite3.Connection, path: Path, tables: Tables, error: Exception) -> None:
    for query in tables.work:
        with contextlib.suppress(sqlite3.OperationalError):
            if database.execute(query).fetchone()[0]:
                raise UserError(
                    f"{tables.owner}'s tables are half made and cannot be brought up to date ({_reason(error)})",
                    place=str(path),
                    cure="Restore a backup of it, or move it away to begin anew",
                ) from error


def _reason(error: Exception) -> str:
    inner = list(causes(error))[-1]
    return " ".join(str(inner).split())[:150] or type(inner).__name__


def state(database: sqlite3.Connection) -> tuple[str | None, bool]:
    """The revision of the tables, None where it is not told, and whether there are no tables at all."""
    names = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    row = database.execute("SELECT version_num FROM alembic_version").fetchone() if "alembic_version" in names else None
    return row[0] if row else None, not {name for name in names if not name.startswith(("alembic_", "sqlite_"))}


def _version(database: sqlite3.Connection) -> int:
    """A number that changes when another connection changes the database."""
    return int(database.execute("PRAGMA data_version").fetchone()[0])


def _expect_whole(path: Path) -> None:
    """Refuse what SQLite would not notice, or not at once: another kind of file, and one that is cut short."""
    if path.is_dir():
        raise UserError("a folder stands where a database is expected", place=str(path), cure="Move it away")
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(100)
    if size and header[: len(_MAGIC)] != _MAGIC:
        raise UserError("it is no SQLite database", place=str(path), cure=machine_errors.BACKUP)
    if not size or any(_has_content(side) for side in _sides(path)):
        # What is beside it is part of it, and SQLite's to read.
        return
    page = int.from_bytes(header[16:18], "big")
    expected = int.from_bytes(header[28:32], "big") * (65536 if page == 1 else page)
    if len(header) < 100 or size < expected:
        raise UserError(
            f"the database is cut short: {size} of {expected} bytes", place=str(path), cure=machine_errors.BACKUP
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS)
        ) as database:
            yield database
    except sqlite3.Error as error:
        if (explained := machine_errors.of_sqlite(error, str(path))) is None:
            raise
        raise explained from error


def _copy(database: sqlite3.Connection, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def _settle(path: Path) -> None:
    """Have all of a database that nobody uses be in its one file, and on the disk."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sync(path)


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A name beside a database; nothing is left there."""
    scratch = _scratch_of(path)
    try:
        yield scratch
    finally:
        _remove(scratch)


def _scratch_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _remove(path: Path) -> None:
    for each in (path, *_sides(path)):
        each.unlink(missing_ok=True)


def _sides(path: Path) -> list[Path]:
    return [path.with_name(path.name + side) for side in _SIDES]


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def has_artifacts(path: Path) -> bool:
    """Whether the tracking store's database at this path has artifacts beside it."""
    store = paths.store()
    return path.parent == paths.artifacts() and store.is_dir() and any(store.iterdir())


def _aside(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.unfinished-{number}") for number in range(1, 10**6))
    return next(name for name in names if not name.exists())


def _newest_first(config: Config) -> list[str]:
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]


def _mlflow_revisions() -> list[str]:
    from mlflow.store.db import utils

    return _newest_first(utils._get_alembic_config(""))  # type: ignore[no-untyped-call]


def _make_mlflow(path: Path) -> None:
    from mlflow.store.db import utils
    from sqlalchemy import event

    with contextlib.closing(sqlite3.connect(path)) as database:
        has_revision = state(database)[0] is not None
    engine = utils.create_sqlalchemy_engine(paths.sqlite_uri(path))  # type: ignore[no-untyped-call]

    @event.listens_for(engine, "connect")
    def hasten(connection: sqlite3.Connection, _: object) -> None:
        # Hundreds of transactions; the file is of no use before the last, and is synchronised then.
        connection.execute("PRAGMA synchronous = OFF")

    try:
        (utils._upgrade_db if has_revision else utils._initialize_tables)(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()


def _prefect_config() -> Config:
    from prefect.server.database.alembic_commands import alembic_config
    from prefect.server.database.dependencies import provide_database_interface

    config = alembic_config()
    config.set_main_option("version_locations", str(provide_database_interface().orm.versions_dir).replace("%", "%%"))
    return config


def _make_prefect(path: Path) -> None:
    import asyncio

    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.server.database.dependencies import provide_database_interface, temporary_database_config

    with temporary_database_config(AioSqliteConfiguration(paths.sqlite_uri(path, "aiosqlite"))):
        asyncio.run(provide_database_interface().create_db())


MLFLOW = Tables(
    "MLflow",
    _mlflow_revisions,
    _make_mlflow,
    (
        "SELECT count(*) FROM runs",
        "SELECT count(*) FROM experiments WHERE experiment_id != 0",
        "SELECT count(*) FROM registered_models",
    ),
)
PREFECT = Tables(
    "Prefect",
    lambda: _newest_first(_prefect_config()),
    _make_prefect,
    ("SELECT count(*) FROM flow_run", "SELECT count(*) FROM deployment", "SELECT count(*) FROM block_document"),
)
