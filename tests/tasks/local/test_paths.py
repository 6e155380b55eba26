"""Names of folders and what becomes of them in URIs: the same folder, whatever letters it is made of."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from sqlalchemy.engine import make_url

from prorec.tasks.local import paths
from prorec.tasks.local.databases import has_artifacts
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.mlflow_runs import TrackedRun
from prorec_core.errors import UserError

ODD = (
    "a%2Fb",
    "a%20b",
    "100%",
    "with space",
    "a#b",
    "a?b=c&d",
    "é ü 日本",
    "e\u0301",
    "x" * 200,
    "a;b$c'd\"e",
    "[1]{2}",
    "a:b@c",
    "+plus",
    "line\nend",
    "-rf",
    "~",
    "\\",
)
_NAMES = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1).filter(
        lambda name: name not in {".", ".."}
    ),
    min_size=1,
    max_size=4,
)


@given(_NAMES)
def test_a_path_survives_its_uris(names: list[str]) -> None:
    path = Path("/", *names)
    for driver in ("", "aiosqlite"):
        uri = paths.sqlite_uri(path, driver)
        assert paths.sqlite_path(uri) == path and paths.shown_uri(uri) == str(path)
        assert make_url(uri).database == str(path) and not make_url(uri).query
        assert uri.isascii() and " " not in uri
    relative = Path(*names)
    assert paths.sqlite_path(paths.sqlite_uri(relative)) == relative
    assert paths.local_path(paths.file_uri(path)) == path


@pytest.mark.parametrize("path", ["/srv/prorec/mlflow.db", "/tmp/a-b_c.d/x~y.db"])
def test_a_plain_path_stays_plain(path: str) -> None:
    assert paths.sqlite_uri(Path(path)) == f"sqlite:///{path}" and paths.file_uri(Path(path)) == path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///artifacts/mlflow.db", "artifacts/mlflow.db"),
        ("sqlite:////srv/a b/x.db?timeout=5", "/srv/a b/x.db"),
        ("sqlite+pysqlite:////a%20b.db", "/a b.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("http://127.0.0.1:5000", None),
        ("postgresql+psycopg2://u:p@h/x", None),
    ],
)
def test_paths_of_uris(uri: str, path: str | None) -> None:
    assert paths.sqlite_path(uri) == (Path(path) if path else None)


def test_no_password_is_shown() -> None:
    assert paths.shown_uri("postgresql+psycopg2://u:secret@h:1/x?password=secret") == "postgresql+psycopg2://h:1/x"


@pytest.mark.parametrize("name", ODD)
def test_a_store_in_an_odd_folder_stays_there(
    name: str, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    monkeypatch.setenv("PROREC_ARTIFACTS", str(folder))
    run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "run", tags={mlflow_runs.EXPERIMENT_TAG: "demo"})
    run.text(mlflow_runs.EXPERIMENT_FILE, "{}")
    assert mlflow_runs.read_text(run.id, mlflow_runs.EXPERIMENT_FILE) == "{}"
    assert paths.local_path(run.artifact_uri) == folder / "store" / run.id / "artifacts" / mlflow_runs.ARTIFACT_FOLDER
    run.finish()
    assert store.verify_all() == (0, [])
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ODD[:6])
def test_a_study_in_an_odd_folder_stays_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna.distributions import FloatDistribution

    from prorec.tasks.tuning.study import open_study

    monkeypatch.setenv("PROREC_ARTIFACTS", str(tmp_path / name))
    with open_study("one", {"a": 1}, {"x": FloatDistribution(0, 1)}, 0, prune=False) as study:
        assert study.ended == 0
    assert (tmp_path / name / "studies" / "one.db").stat().st_size > 0
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ODD)
def test_prefects_database_is_in_its_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME, temporary_settings

    home = tmp_path / name
    environment = paths.prefect_environment(home)
    with temporary_settings({PREFECT_HOME: home}):
        default = f"sqlite+aiosqlite:///{home}/prefect.db"
    uri = environment.get(PREFECT_API_DATABASE_CONNECTION_URL.name.replace("_API_", "_SERVER_"), default)
    assert make_url(uri).database == str(home / "prefect.db") and environment["PREFECT_HOME"] == str(home)
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://h/x")
    assert paths.prefect_environment(home) == {"PREFECT_HOME": str(home)}


def test_a_folder_that_cannot_be_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for chosen, message in (
        (str(tmp_path / "file"), "this is a file"),
        (str(tmp_path / "file" / "below" / "it"), "/file is no folder. Name a folder"),
        (os.fsdecode(b"/tmp/\xff"), r"PROREC_ARTIFACTS /tmp/\\xff: the name is not UTF-8"),
        ("~nobody-has-this-name/x", "there is no such user"),
    ):
        monkeypatch.setenv("PROREC_ARTIFACTS", chosen)
        with pytest.raises(UserError, match=message):
            paths.artifacts()


@pytest.mark.parametrize(
    "uri",
    [
        *("nonsense", "foo://bar", "s3://bucket/x", "file:///tmp/x", "/tmp/x", "sqlite:/x", "://", " ", "postgresql:x"),
        *("http://", "http://[", "https://no such host", "http://h:99999", "http:h", "databricks", "uc:x"),
    ],
)
def test_an_address_that_names_no_store_is_told(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI.*: it names no tracking store: "):
        paths.tracking_uri()


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:5000",
        "https://h/mlflow?a=b@c",
        "http://h:80/a@b",
        "http://[::1]:80/a@b",
        "http://h?a=b@c",
        "sqlite:///x.db",
        "postgresql+psycopg2://h/x",
    ],
)
def test_addresses_of_stores_are_taken(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert paths.tracking_uri() == uri


@pytest.mark.parametrize("login", ["somebody:s3cret", "somebody", "s3cret:", "u:s3cret/more", "u:s3cret@x"])
@pytest.mark.parametrize("scheme", ["https", "HTTP"])
def test_the_address_of_a_server_that_holds_a_login_is_refused(
    scheme: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://{login}@h/mlflow")
    with pytest.raises(
        UserError, match=rf"MLFLOW_TRACKING_URI {scheme}://h/mlflow: it holds a user .*_USERNAME"
    ) as told:
        paths.tracking_uri()
    assert "s3cret" not in str(told.value)


def test_a_missing_database_beside_artifacts_is_no_empty_store(artifacts_folder: Path) -> None:
    assert store.verify_all() == (0, [])
    (artifacts_folder / "store" / "1").mkdir(parents=True)
    assert has_artifacts(artifacts_folder / "mlflow.db")
    looked_at, (problem,) = store.verify_all()
    assert looked_at == 0 and problem.endswith("mlflow.db: the file is missing, and there are artifacts beside it")


def test_the_command_that_shows_runs_names_the_database(
    artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    from prorec.flows.local.embedded import mlflow_lines

    folder = artifacts_folder / "a%2F b'#?"
    folder.mkdir()
    monkeypatch.setenv("PROREC_ARTIFACTS", str(folder))
    run = {"page": None, "experiment_id": "1", "run_id": "2"}
    for here in (Path("/"), folder.parent, folder):
        monkeypatch.chdir(here)
        words = shlex.split(str(mlflow_lines(run)["MLflow"]))
        uri = words[words.index("--backend-store-uri") + 1]
        assert Path(str(make_url(uri).database)).absolute() == folder / "mlflow.db"


def test_texts_beside_runs_are_verified(tracked_folder: Path) -> None:
    def whole(*texts: tuple[str, str]) -> tuple[TrackedRun, Path]:
        run = TrackedRun.start(mlflow_runs.experiment_id("demo"), "run", tags={mlflow_runs.EXPERIMENT_TAG: "demo"})
        for name, content in texts:
            run.text(name, content)
        run.finish()
        folder = paths.local_path(run.uri)
        assert folder is not None
        return run, folder

    files = (mlflow_runs.EXPERIMENT_FILE, mlflow_runs.SUMMARY_FILE)
    run, folder = whole(*((name, '{"seed": 10}') for name in files))
    assert store.verify_all() == (0, [])
    for name in files:
        content = (folder / name).read_bytes()
        for damaged in (b"", content[:-3], content.replace(b"1", b"2"), b"\xff" + content, None):
            if damaged is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(damaged)
            _, (problem,) = store.verify_all()
            assert f"MLflow run {run.id}" in problem and f"'{name}'" in problem
            with pytest.raises(UserError, match=name):
                mlflow_runs.read_text(run.id, name)
        (folder / name).write_bytes(content)
    assert store.verify_all() == (0, [])

    # Earlier versions kept no hash: what is no JSON is found.
    old, folder = whole((mlflow_runs.EXPERIMENT_FILE, "{}"))
    MlflowClient(paths.tracking_uri()).delete_tag(old.id, f"{mlflow_runs.TEXT_TAG}{mlflow_runs.EXPERIMENT_FILE}")
    assert store.verify_all() == (0, [])
    (folder / mlflow_runs.EXPERIMENT_FILE).write_text('{"seed": ')
    _, (problem,) = store.verify_all()
    assert f"MLflow run {old.id}: the file 'experiment.json' of the run is damaged" in problem


@pytest.mark.parametrize(
    ("name", "content", "parquet", "message"),
    [
        ("new.json", None, False, ""),
        ("old.json", b'{"table": {}}', False, ""),
        ("empty", b"", False, ""),
        ("shop.yaml", b"data: {source: demo}\n", False, "a file that is no JSON stands there, and would be lost"),
        ("log.jsonl", b'{"a": 1}\n{"a": 2}\n', False, "a file that is no JSON stands there"),
        ("rows.json", b"[1, 2]", False, "a file that is no JSON stands there"),
        ("read.json", b"{}", False, "this file is read, and would be lost"),
        ("new.parquet", None, True, ""),
        ("old.parquet", b"PAR1...", True, ""),
        ("bare", None, True, ""),
        ("lists.csv", None, True, r"lists are written as Parquet. Name a file that ends in .parquet"),
        ("users.parquet", b"user_id,item_id\n", True, "a file that is no Parquet stands there"),
        ("read.parquet", b"PAR1...", True, "this file is read, and would be lost"),
    ],
)
def test_what_is_written_takes_the_place_of_its_own_kind_alone(
    name: str, content: bytes | None, parquet: bool, message: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    inputs = ["demo", "no\0where", tmp_path, tmp_path / "x" / ".." / name if name.startswith("read") else "-"]
    (tmp_path / "x").mkdir()
    if not message:
        paths.expect_output(file, "--out", inputs, parquet=parquet)
        return
    with pytest.raises(UserError, match=message):
        paths.expect_output(file, "--out", inputs, parquet=parquet)
    assert content is None or file.read_bytes() == content
