"""What a machine refuses is told in one line; an error of the program keeps its traceback."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from prorec.tasks.local import databases, paths
from prorec.tasks.local.machine_errors import explained
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.retries import is_passing
from prorec_core.errors import UserError


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "access is denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.ENOTDIR, "a file stands where a folder is expected"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.ELOOP, "lead in a circle"),
        (errno.EIO, "the disk cannot be read or written"),
    ],
)
def test_what_the_system_refuses(number: int, words: str) -> None:
    told = explained(OSError(number, os.strerror(number), "/srv/x"))
    assert told is not None and told.place == "/srv/x" and words in told.problem and told.cure


def test_a_full_disk_is_told_where_nobody_knows_the_file(artifacts_folder: Path) -> None:
    told = explained(OSError(errno.ENOSPC, "No space left on device"))
    assert told is not None and "disk" in told.problem and told.cure


def test_a_text_of_sqlite_that_is_none_is_told_as_damage(artifacts_folder: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute("SELECT CAST(x'ff' AS TEXT)").fetchall()
        except sqlite3.OperationalError as error:
            told = explained(error)
    assert told is not None and told.problem == "the database is damaged"
    assert told.place == str(artifacts_folder / "mlflow.db")


def test_what_is_wrapped_is_found(artifacts_folder: Path) -> None:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    inner = sqlite3.OperationalError("attempt to write a readonly database")
    try:
        try:
            try:
                raise inner
            except sqlite3.OperationalError as error:
                raise OperationalError("INSERT", {}, error) from error
        except OperationalError as error:
            raise MlflowException(str(error)) from error
    except MlflowException as error:
        told = explained(error)
    assert told is not None and told.place == str(artifacts_folder / "mlflow.db")
    assert told.problem == "the database cannot be written"


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("database is locked", True),
        ("database table is locked", True),
        ("attempt to write a readonly database", False),
        ("database disk image is malformed", False),
        ("no such table: runs", False),
        ("unable to open database file", False),
    ],
)
def test_nobody_waits_for_what_does_not_pass_by_itself(said: str, passes: bool) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

    error = MlflowException(said, error_code=TEMPORARILY_UNAVAILABLE)
    error.__cause__ = sqlite3.OperationalError(said)
    assert is_passing(error) is passes


@pytest.mark.parametrize(
    "error",
    [
        *(
            ValueError("x"),
            KeyError("x"),
            AssertionError(),
            RuntimeError("no such thing"),
            OSError("x"),
            sqlite3.Error(),
        ),
        *(FileNotFoundError(errno.ENOENT, "x", "/elsewhere/x"), ConnectionRefusedError(errno.ECONNREFUSED, "x")),
        *(
            PermissionError(errno.EPERM, "kill"),
            ModuleNotFoundError("x", name="x"),
            UnicodeDecodeError("a", b"", 0, 1, ""),
        ),
    ],
)
def test_errors_of_the_program_are_not_explained_away(error: Exception) -> None:
    assert explained(error) is None


def test_a_circle_of_causes_has_an_end() -> None:
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert explained(one) is None
    assert explained(told := UserError("x")) is told


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("postgresql+psycopg2://u:secret@127.0.0.1:1/x", "the database does not answer (connection to server at"),
        ("postgresql+foo://h/x", "it names no tracking store (Can't load plugin"),
        ("postgresql+pg8000://h/x", None),
    ],
)
def test_a_database_server_that_cannot_be_used_is_told_at_once(
    uri: str, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(Exception) as caught:
        databases.expect_answer(uri)
    told = explained(caught.value)
    assert told is not None or words is None
    assert words is None or words in str(told)
    assert "secret" not in str(told)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (".env", b"\xff\xfe\n", "the file is not UTF-8"),
        (".env", b"PREFECT_API_REQUEST_TIMEOUT=soon\n", "Prefect's setting 'request_timeout': Input should be a valid"),
        ("prefect.toml", b"[[", "Prefect's settings cannot be read (Failed to load Prefect settings from prefect.toml"),
        ("pyproject.toml", b"[tool.prefect\n", "Prefect's settings cannot be read"),
        ("prefect.toml", b'[api]\nrequest_timeout = "soon"\n', "Prefect's setting 'request_timeout'"),
    ],
)
def test_settings_of_prefect_that_cannot_be_read_name_the_file(
    file: str, content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import Settings

    monkeypatch.chdir(tmp_path)
    # Prefect takes this name off while it tests itself.
    monkeypatch.delenv("PREFECT_TESTING_TEST_MODE", raising=False)
    Path(file).write_bytes(content)
    with pytest.raises(Exception) as caught:
        Settings()
    told = explained(caught.value)
    assert told is not None and words in told.problem
    assert told.place in {str(tmp_path / file), str(tmp_path)} and told.cure


def test_a_variable_of_prefect_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings

    monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="request_timeout") as caught:
        Settings()
    told = explained(caught.value)
    assert told is not None and told.place == "PREFECT_API_REQUEST_TIMEOUT"


@contextmanager
def as_somebody_else(folder: Path) -> Iterator[None]:
    """This process belongs to a user who may look into a folder of root's, and no more."""
    for each in (folder, *folder.parents):
        if each.stat().st_uid == 0 and each != Path("/") and not each.stat().st_mode & 0o001:
            each.chmod(each.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_folder_of_somebody_else_is_told(tracked_folder: Path) -> None:
    (tracked_folder / "mlflow.db").chmod(0o600)
    with as_somebody_else(tracked_folder), pytest.raises(PermissionError) as denied:
        databases.prepare_mlflow(paths.tracking_uri())
    told = explained(denied.value)
    assert told is not None and told.place.startswith(str(tracked_folder)) and told.problem == "access is denied"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_whoever_may_only_read_a_store_can_read_it(tracked_folder: Path) -> None:
    mlflow_runs.identity()
    for each in (tracked_folder, *tracked_folder.iterdir()):
        each.chmod(0o755 if each.is_dir() else 0o644)
    mlflow_runs._client.cache_clear()
    with as_somebody_else(tracked_folder):
        assert "prorec store" in {each.name for each in mlflow_runs.client().search_experiments()}
        assert not list(mlflow_runs.search())
    assert not (tracked_folder / ".mlflow.db.lock").exists()


def test_a_database_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE x (y)")
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database,
        pytest.raises(sqlite3.OperationalError) as caught,
    ):
        database.execute("INSERT INTO x VALUES (1)")
    told = explained(caught.value)
    assert told is not None and told.problem == "the database cannot be written"
