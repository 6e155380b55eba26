"""Queries against a real PostgreSQL and a DuckDB file, and that no part of an address is told."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prorec.tasks.local import paths
from prorec.tasks.stages.preprocess import located
from prorec_core.artifacts import read_json
from prorec_core.config import Experiment
from prorec_core.config_data import DataConfig, SqlConfig
from prorec_core.data import snapshots, sql
from prorec_core.data.stage import preprocess, source_digest
from prorec_core.errors import UserError
from prorec_core.stages.in_folder import StagesInFolder

PASSWORD = "s3cret/word"
LOG = (
    "SELECT u AS user_id, (u + s) % 6 AS item_id, s AS timestamp FROM generate_series(0, 7) u, generate_series(0, 3) s"
)
ITEMS = "SELECT i AS item_id, 'T' || i AS title, 'c' AS categories FROM generate_series(0, 5) i"


def config(folder: Path, **queries: Any) -> DataConfig:
    section = SqlConfig(
        interactions="SELECT * FROM interactions ORDER BY user_id, timestamp",
        items="SELECT * FROM items ORDER BY item_id",
    ).model_copy(update={"connection": "SHOP", **queries})
    return DataConfig(source="sql", path=str(folder), sql=section, min_user_interactions=3, min_item_interactions=1)


def refusal(chosen: DataConfig) -> str:
    sql._asked.clear()
    with pytest.raises(UserError) as caught:
        preprocess(chosen)
    error = caught.value
    assert "\n" not in str(error)
    told = "".join(traceback.format_exception(error))
    for part in (PASSWORD, "s3cret/", "%2F", "@127.0.0.1"):
        assert part not in told, "neither the message nor what a log would show"
    assert "shopkeeper" not in str(error) and "127.0.0.1" not in str(error)
    return str(error)


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    sql._asked.clear()
    yield
    sql._asked.clear()


@pytest.fixture
def duckdb_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed (the extra sql)")
    path = tmp_path / "a shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        series = LOG.replace("generate_series(0, 7) u", "range(8) t(u)").replace(
            "generate_series(0, 3) s", "range(4) r(s)"
        )
        connection.execute(f"CREATE TABLE interactions AS {series}")
        connection.execute(f"CREATE TABLE items AS {ITEMS.replace('generate_series(0, 5) i', 'range(6) t(i)')}")
    monkeypatch.setenv("SHOP", f"duckdb:///{path}")
    return path


def test_rows_of_a_duckdb_file_are_kept_and_read(duckdb_file: Path, tmp_path: Path) -> None:
    chosen = config(tmp_path / "kept")
    digest = source_digest(chosen)
    found = preprocess(chosen)
    assert (found.sequences.n_users, len(found.sequences.items)) == (8, 32)
    snapshot = found.profile["snapshot"]
    assert sorted(path.name for path in (tmp_path / "kept" / snapshot).iterdir()) == [
        "interactions.parquet",
        "items.parquet",
    ]
    assert source_digest(chosen) == digest == snapshot and len(list((tmp_path / "kept").glob("[!.]*"))) == 1
    duckdb_file.unlink()
    sql._asked.clear()
    pinned = config(tmp_path / "kept", snapshot=snapshot)
    assert preprocess(pinned).sequences.n_users == 8, "a snapshot is read without the database"
    assert "is not set" not in refusal(chosen)
    (tmp_path / "kept" / snapshot / "items.parquet").write_bytes(b"PAR1")
    assert "its digest differs" in refusal(pinned)
    assert "no such snapshot" in refusal(config(tmp_path / "kept", snapshot="0" * 64))


def test_a_query_opens_no_other_file_and_writes_nothing(duckdb_file: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("item_id,title,categories\n1,a,b\n")
    for query in (
        f"SELECT * FROM read_csv('{tmp_path}/other.csv')",
        f"COPY items TO '{tmp_path}/out.csv'",
        "DROP TABLE items",
        "INSTALL httpfs",
        "SELECT * FROM nowhere",
        "SELECT",
    ):
        assert "refuses the query" in refusal(config(tmp_path / "kept", items=query))
    assert not (tmp_path / "out.csv").exists()
    assert not [path for path in (tmp_path / "kept").iterdir() if path.is_dir()]


def test_an_address_that_leads_nowhere_is_told_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP", raising=False)
    assert "SHOP is not set" in refusal(config(tmp_path))
    monkeypatch.setenv("SHOP", f"mysql://shopkeeper:{PASSWORD}@127.0.0.1/x")
    assert "no known kind of database" in refusal(config(tmp_path))


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    monkeypatch.setenv("SHOP", "duckdb:////nowhere")
    assert "prorec[sql]" in refusal(config(tmp_path))


def test_no_folder_is_an_error_and_the_store_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config(tmp_path).model_copy(update={"path": None})
    with pytest.raises(UserError, match="needs a folder"):
        source_digest(chosen)
    monkeypatch.setenv(paths.ARTIFACTS_VARIABLE, str(tmp_path))
    assert located(chosen).path == str(tmp_path / "snapshots")


def test_the_same_rows_are_kept_once_however_they_come(tmp_path: Path) -> None:
    frame = pa.table({"a": list(range(10))})
    ways = ([frame.slice(0, 0), frame], [frame.slice(0, 0), frame.slice(0, 3), frame.slice(3)])
    digests = {
        snapshots.keep(tmp_path, {"t": (batch for part in way for batch in part.to_batches() or [_none(frame)])})
        for way in ways
    }
    (digest,) = digests
    assert pq.read_table(tmp_path / digest / "t.parquet").num_rows == 10
    (tmp_path / digest / "t.parquet").write_bytes(b"damaged")
    assert snapshots.keep(tmp_path, {"t": [_none(frame), *frame.to_batches()]}) == digest
    assert snapshots.kept(tmp_path, digest, ["t"]).is_dir(), "what was damaged is written anew"


def _none(frame: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=frame.schema)


def test_what_a_killed_process_left_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".begun-dead"
    left.mkdir()
    (left / "lock").touch()
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[pa.RecordBatch]:
        yield from [pa.RecordBatch.from_pydict({"a": [1]})] * 2
        inside.set()
        go_on.wait(10)

    writer = threading.Thread(target=snapshots.keep, args=(tmp_path, {"t": slow()}))
    writer.start()
    inside.wait(10)
    snapshots.keep(tmp_path, {"t": [pa.RecordBatch.from_pydict({"a": [2]})] * 2})
    assert not left.exists() and len(list(tmp_path.glob(".begun-*"))) == 1
    go_on.set()
    writer.join()
    assert len(list(tmp_path.glob("[!.]*"))) == 2 and not list(tmp_path.glob(".begun-*"))


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a server on loopback, with a password."""
    if (programs := _programs()) is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    if importlib.util.find_spec("adbc_driver_postgresql") is None:
        pytest.skip("adbc-driver-postgresql is not installed (the extra sql)")
    # Its user may not look into the folders of tests.
    folder = Path(tempfile.mkdtemp(prefix="prorec-postgres-"))
    other = os.getuid() == 0 and next((user for user in pwd.getpwall() if user.pw_name in {"postgres", "nobody"}), None)
    who: dict[str, Any] = {"user": other.pw_uid, "group": other.pw_gid} if other else {}
    if other:
        folder.chmod(0o755)
        shutil.chown(folder, other.pw_uid, other.pw_gid)
    (folder / "word").write_text(PASSWORD)
    (folder / "word").chmod(0o644)
    arguments = ["-U", "shopkeeper", "-A", "scram-sha-256", f"--pwfile={folder}/word", "-N", "-D", f"{folder}/data"]
    subprocess.run([programs / "initdb", *arguments], check=True, capture_output=True, cwd=folder, **who)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
    control = [programs / "pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log"]
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, cwd=folder, **who)
    try:
        yield f"postgresql://shopkeeper:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=folder, **who)
        shutil.rmtree(folder, ignore_errors=True)


def test_rows_of_postgresql(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", postgres)
    chosen = config(tmp_path, interactions=f"{LOG} ORDER BY 1, 3", items=ITEMS)
    found = preprocess(chosen)
    assert (found.sequences.n_users, found.sequences.n_items, len(found.sequences.items)) == (8, 6, 32)
    typed = "SELECT s::numeric AS a, now() AS b, 'x'::uuid::text AS c FROM generate_series(1, 300000) s"
    typed = typed.replace("'x'", "'6f9619ff-8b86-d011-b42d-00c04fc964ff'")
    many = config(tmp_path, interactions=typed, items=ITEMS)
    digest = source_digest(many)
    table = pl.read_parquet(tmp_path / digest / "interactions.parquet")
    assert table.height == 300_000 and table["a"].n_unique() == 300_000


def test_what_postgresql_refuses_is_told_without_the_address(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP", postgres)
    told = refusal(config(tmp_path, interactions="SELECT * FROM orders", items=ITEMS))
    assert "refuses the query" in told and 'relation "orders" does not exist' in told
    for query in ("CREATE TABLE x (a int)", "SELECT current_setting('nothing.here')", "SELECT 1 / 0"):
        assert "refuses the query" in refusal(config(tmp_path, interactions=query, items=ITEMS))
    for wrong, said in (
        (postgres.replace("s3cret", "wrong"), "refuses the name or the password"),
        (postgres.replace("/postgres", "/nowhere"), "has no database of this name"),
        (postgres.rpartition(":")[0] + ":1/postgres", "does not answer"),
        (postgres + "?nonsense=s3cret", "the database"),
    ):
        monkeypatch.setenv("SHOP", wrong)
        assert said in refusal(config(tmp_path, interactions=LOG, items=ITEMS))


def test_a_run_as_a_library_keeps_snapshots_in_its_folder(duckdb_file: Path, tmp_path: Path) -> None:
    del duckdb_file
    without = config(tmp_path).model_copy(update={"path": None})
    stages = StagesInFolder(tmp_path / "shop", Experiment(data=without), quiet=True)
    stages.run("preprocess")
    assert [path.name for path in (tmp_path / "shop" / "snapshots").glob("[!.]*")] == [
        read_json(stages.of("preprocess") / "profile.json")["snapshot"]
    ]


def test_a_snapshot_is_read_once_by_a_process_and_again_when_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    sha256 = snapshots.sha256_file
    monkeypatch.setattr(snapshots, "sha256_file", lambda path: read.append(path.parent.name) or sha256(path))
    batch = pa.RecordBatch.from_pydict({"a": [1]})
    digest = snapshots.keep(tmp_path, {"t": [batch, batch]})
    for _ in range(3):
        snapshots.kept(tmp_path, digest, ["t"])
    assert len(read) == 1
    (tmp_path / digest / "t.parquet").write_bytes(b"x")
    for _ in range(2):
        with pytest.raises(UserError, match="is not what was kept"):
            snapshots.kept(tmp_path, digest, ["t"])
