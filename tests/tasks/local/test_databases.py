"""MLflow's and Prefect's databases: whole or not there, whatever was killed when; data is never begun anew."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from prorec.tasks.local import databases, paths
from prorec.tasks.local.databases import MLFLOW, PREFECT, Tables
from prorec_core.errors import UserError
from tests.campaigns.first_start import OPEN, is_whole, make_older

MOMENTS = (3, 40, 130, 260)
"""Statements after which the tables of a first start are looked at."""


@pytest.fixture(scope="session")
def killed_at(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What earlier versions, which made the tables in the database's own file, left when they were killed.

    A copy of the file and of its journal in the middle of the work is what a kill leaves.
    """
    from mlflow.store.db import utils
    from sqlalchemy import event

    folder = tmp_path_factory.mktemp("killed")
    path = folder / "mlflow.db"
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{path}")
    count = 0

    @event.listens_for(engine, "connect")
    def hasten(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    @event.listens_for(engine, "before_cursor_execute")
    def look(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal count
        count += statement.lstrip().upper().startswith(("CREATE", "ALTER", "INSERT", "DROP", "UPDATE"))
        into = folder / str(count)
        if count in MOMENTS and not into.exists():
            into.mkdir()
            for each in folder.glob("mlflow.db*"):
                shutil.copyfile(each, into / each.name)

    utils._initialize_tables(engine)
    engine.dispose()
    return {moment: folder / str(moment) for moment in MOMENTS}


def _take(folder: Path, into: Path) -> Path:
    for each in folder.iterdir():
        shutil.copyfile(each, into / each.name)
    return into / "mlflow.db"


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_a_first_start_left_half_made_is_healed(
    killed_at: dict[int, Path], artifacts_folder: Path, moment: int
) -> None:
    path = _take(killed_at[moment], artifacts_folder)
    databases.prepare_mlflow(paths.tracking_uri())
    assert is_whole(path, MLFLOW)
    assert MlflowClient(paths.tracking_uri()).get_experiment("0").name == "Default"
    assert not list(artifacts_folder.glob(".*.part*"))


def test_half_made_with_runs_is_told_and_left_alone(killed_at: dict[int, Path], artifacts_folder: Path) -> None:
    path = _take(killed_at[260], artifacts_folder)
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'prorec-demo', 'active')"
        )
        # A migration that comes to a column which is there cannot go on.
        database.execute("UPDATE alembic_version SET version_num = (SELECT '451aebb31d03')")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"mlflow\.db: MLflow's tables are half made and cannot be brought up to date"):
        databases.prepare_mlflow(paths.tracking_uri())
    assert path.read_bytes() == before and not list(artifacts_folder.glob("*unfinished*"))


def test_half_made_without_runs_is_kept_aside(
    killed_at: dict[int, Path], artifacts_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _take(killed_at[260], artifacts_folder)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = (SELECT '451aebb31d03')")
        database.commit()
    databases.prepare_mlflow(paths.tracking_uri())
    assert is_whole(path, MLFLOW) and is_sqlite(artifacts_folder / "mlflow.db.unfinished-1")
    (said,) = [record.getMessage() for record in caplog.records if record.name == "prorec.tasks.local.databases"]
    assert said.endswith("mlflow.db was left half made and is begun anew; what was there is mlflow.db.unfinished-1")


def is_sqlite(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as database:
        return bool(database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def test_older_tables_are_brought_up_to_date_in_the_same_file(
    artifacts_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = artifacts_folder / "mlflow.db"
    make_older(path, 3, {7: "prorec-demo"})
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM experiments").fetchone()[0] == 1
        databases.prepare_mlflow(paths.tracking_uri())
        # Who had the file open before sees what is there now.
        (revision,) = other.execute("SELECT version_num FROM alembic_version").fetchone()
    assert revision == MLFLOW.revisions()[0] and is_whole(path, MLFLOW)
    assert MlflowClient(paths.tracking_uri()).get_experiment("7").name == "prorec-demo"
    assert "has the tables of this version of MLflow now" in caplog.text
    assert not list(artifacts_folder.glob(".*.part*"))


def test_what_others_write_while_tables_are_made_is_not_lost(
    artifacts_folder: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artifacts_folder / "small.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('1')")
        database.execute("CREATE TABLE work (name)")
        database.commit()
    written: list[str] = []

    def make(scratch: Path) -> None:
        with closing(sqlite3.connect(scratch)) as database:
            database.execute("UPDATE alembic_version SET version_num = '2'")
            database.commit()
        if len(written) < 2:
            written.append("x")
            with closing(sqlite3.connect(path)) as database:
                database.execute("INSERT INTO work VALUES ('mine')")
                database.commit()

    databases._prepare(path, Tables("Other", lambda: ["2", "1"], make, ()))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM work").fetchone() == (2,)
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("2",)


def test_tables_of_a_newer_version_are_left_alone(tracked_folder: Path) -> None:
    path = tracked_folder / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'f00000000000'")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"mlflow\.db: its tables are of a newer version of MLflow"):
        databases.prepare_mlflow(paths.tracking_uri())
    assert path.read_bytes() == before


def test_what_a_killed_process_left_beside_a_whole_database_is_removed(tracked_folder: Path) -> None:
    left = tracked_folder / ".mlflow.db.part"
    left.write_bytes(b"x")
    databases.prepare_mlflow(paths.tracking_uri())
    assert not left.exists() and is_whole(tracked_folder / "mlflow.db", MLFLOW)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def _zero(path: Path) -> None:
    path.write_bytes(b"")
    paths.store().mkdir()
    (paths.store() / "0123").mkdir()


def _noise(path: Path) -> None:
    path.write_bytes(b"\x07" * 100_000)


def _noise_inside(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * 50 * 4096)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "the database is cut short: "),
        (lambda path: os.truncate(path, 50), "the database is cut short: 50 of"),
        (_zero, "the database is empty, and there are artifacts beside it"),
        (_noise, "it is no SQLite database"),
        (_noise_inside, "the database is damaged"),
        (_folder, "a folder stands where a database is expected"),
    ],
)
def test_a_damaged_database_is_one_line(tracked_folder: Path, damage: Callable[[Path], None], message: str) -> None:
    from prorec.tasks.tracking.mlflow_runs import _client
    from prorec.tasks.tracking.store import verify_all

    path = tracked_folder / "mlflow.db"
    damage(path)
    with pytest.raises(UserError, match=rf"mlflow\.db: {message}"):
        _client.__wrapped__(paths.tracking_uri())
    with pytest.raises(UserError, match=message):
        verify_all()


def test_damage_that_opening_does_not_meet_is_found(tracked_folder: Path) -> None:
    path = tracked_folder / "mlflow.db"
    assert databases.problems(path) == []
    with closing(sqlite3.connect(path)) as database:
        root = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'metrics'").fetchone()[0]
    with path.open("r+b") as stream:
        stream.seek((root - 1) * 4096)
        stream.write(b"\xff" * 4096)
    assert databases.problems(path)


def test_an_empty_file_with_nothing_beside_is_begun_anew(artifacts_folder: Path) -> None:
    path = artifacts_folder / "mlflow.db"
    path.touch()
    databases.prepare_mlflow(paths.tracking_uri())
    assert is_whole(path, MLFLOW)


@pytest.fixture
def prefect_home(artifacts_folder: Path) -> Iterator[Path]:
    from prefect.server.database.dependencies import temporary_database_interface
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

    home = artifacts_folder / "prefect %2F #?é"
    uri = paths.sqlite_uri(home / "prefect.db", "aiosqlite")
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: uri}), temporary_database_interface():
        yield home


def test_prefects_database_is_made_healed_and_told(prefect_home: Path) -> None:
    path = prefect_home / "prefect.db"
    databases.prepare_prefect()
    assert is_whole(path, PREFECT) and [each.name for each in prefect_home.glob("[!.]*")] == ["prefect.db"]

    # A revision that says less than is there, as an interrupted migration leaves it.
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (PREFECT.revisions()[40],))
        database.commit()
    databases.prepare_prefect()
    assert is_whole(path, PREFECT) and (prefect_home / "prefect.db.unfinished-1").exists()

    _truncate(path)
    with pytest.raises(UserError, match=r"prefect\.db: the database is cut short"):
        databases.prepare_prefect()


@pytest.mark.pipeline
def test_a_first_start_that_is_killed_leaves_nothing_half_made(tmp_path: Path) -> None:
    """The campaign in `tests.campaigns.first_start` does this at many moments, with Prefect and for the stack."""
    path = tmp_path / "mlflow.db"
    environment = {**os.environ, "PROREC_ARTIFACTS": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    for pause in (0.0, 0.3, 1.2):
        process = subprocess.Popen([sys.executable, "-c", OPEN], env=environment)
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*mlflow.db*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(pause)
        process.kill()
        process.wait()
        assert not path.exists() or is_whole(path, MLFLOW)
    assert subprocess.run([sys.executable, "-c", OPEN], env=environment, check=False, timeout=100).returncode == 0
    assert is_whole(path, MLFLOW) and not list(tmp_path.glob(".*.part*"))
