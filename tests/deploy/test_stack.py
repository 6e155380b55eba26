"""The services of docker-compose.yml as plain processes: the very commands and variables, without an engine.

Names of services become 127.0.0.1, ports free ones, and the folders of volumes temporary ones; where this runs as
root, a service gets a user without rights, who can write to its volumes alone, as in its container. PostgreSQL is a
real one; what its image does on first start (initdb, the script) is done here. MinIO's place takes moto's S3 server.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run

from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.tracking import store
from prorec_core.artifacts import MANIFEST, ArtifactRef, Manifest, read_json, verify
from tests.leasing import wanting
from tests.tiny import tiny

pytestmark = pytest.mark.pipeline
ROOT = Path(__file__).resolve().parents[2]
USER = 10001


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs: Debian keeps them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    beside = shutil.which("initdb")
    return found[-1].parent if found else Path(beside).resolve().parent if beside else None


PROGRAMS = postgres_programs()
if PROGRAMS is None:
    pytest.skip("PostgreSQL is not installed (Debian: postgresql)", allow_module_level=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """The services, started one by one; all end with the context."""

    def __init__(self, files: Any, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._running = ExitStack()
        self.ports = {name: free_port() for name in ("postgres", "minio", "mlflow", "prefect", "worker", "serve")}
        self._ports_inside = {"postgres": 5432, "minio": 9000, "mlflow": 5000, "prefect": 4200, "worker": 8080}
        self.variables = {
            **{name: value or "a secret:/@%&?'" for name, value in files.example.items()},
            "MINIO_ROOT_USER": "administrator",
            **{f"{name.upper()}_PORT": str(self.ports[name]) for name in ("mlflow", "prefect", "serve")},
        }
        self.logs = folder / "logs"
        self.logs.mkdir()
        folder.chmod(0o755)

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def url(self, name: str) -> str:
        """Where a service answers."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def _here(self, text: str, name: str) -> str:
        """A word of the compose file with hosts, ports and folders of this test in the place of the containers'."""
        for other, inside in self._ports_inside.items():
            text = re.sub(rf"\b{other}:{inside}\b", f"127.0.0.1:{self.ports[other]}", text)
            text = re.sub(rf"\b127\.0\.0\.1:{inside}\b", f"127.0.0.1:{self.ports[other]}", text)
            text = re.sub(rf"^(--port=)?{inside}$", rf"\g<1>{self.ports[other]}", text)
        text = re.sub("^(--host=)?(0\\.0\\.0\\.0|postgres)$", r"\g<1>127.0.0.1", text)
        for inside, outside in {**self._folders(name), "/app": ROOT}.items():
            text = re.sub(rf"(?<![\w./]){inside}(?=$|[/ ])", str(outside), text)
        return text

    def _folders(self, name: str) -> dict[str, Path]:
        """The folders that a service may write to: its tmpfs, alone, and its volumes, shared by name."""
        service = self._files.services[name]
        found = {"/tmp": self._folder / "tmp" / name}
        for volume in self._files.fill(service.get("volumes", []), self.variables):
            source, target = volume.split(":")[:2]
            if "/" not in source:
                found[target] = self._folder / "volumes" / source
        return found

    def environment(self, name: str) -> dict[str, str]:
        """A service's variables, with this machine's path."""
        service = self._files.fill(self._files.services[name], self.variables)
        every = {**self._files.image_environment(), **service.get("environment", {})}
        here = {key: self._here(value, name) for key, value in every.items()}
        # Tensors of tests are small: threads that wait for each other cost more than they do.
        return {**here, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{PROGRAMS}:/usr/bin:/bin"}

    def command(self, name: str) -> list[str]:
        """A service's command."""
        words = self._files.fill(self._files.services[name]["command"], self.variables)
        return [self._here(word, name) for word in words]

    def _without_rights(self, name: str) -> list[str]:
        """The words before a command that take root's rights away, but for reading: Python may be root's alone."""
        for folder in self._folders(name).values():
            (folder / "tmp").mkdir(parents=True, exist_ok=True)
            if os.getuid() == 0:
                os.chown(folder, USER, USER)
                os.chown(folder / "tmp", USER, USER)
        if os.getuid() != 0:
            return []
        caps = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search", "--no-new-privs"]
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *caps]

    def start(self, name: str, command: list[str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start a service; its processes are a group of their own, ended together."""
        command = command or [*self._without_rights(name), *self.command(name)]
        log = self._running.enter_context((self.logs / f"{name}.log").open("ab"))
        options = {"cwd": ROOT, "env": self.environment(name), **options}
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options)
        self._running.callback(end, process)
        return process

    def finish(self, *names: str) -> None:
        """Run services that end by themselves, beside each other."""
        running = {name: self.start(name) for name in names}
        for name, process in running.items():
            assert process.wait(300) == 0, self.log(name)

    def wait(self, name: str) -> None:
        """Return once a service's health check passes."""
        kind, *test = self._files.fill(self._files.services[name]["healthcheck"]["test"], self.variables)
        test = [self._here(word, name) for word in (test if kind == "CMD" else ["sh", "-c", *test])]
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if subprocess.run(test, env=self.environment(name), cwd=ROOT, capture_output=True, check=False).returncode:
                time.sleep(0.2)
            else:
                return
        raise AssertionError(f"{name} is not healthy: {self.log(name)}")

    def log(self, name: str) -> str:
        """What a service wrote, its end."""
        return (self.logs / f"{name}.log").read_text()[-5000:]

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`docker compose exec NAME …`."""
        return subprocess.run(
            [*self._without_rights(name), *words],
            env=self.environment(name),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a group of processes that nobody needs any more."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start_postgres(stack: Stack, files: Any, folder: Path) -> None:
    """A cluster as the image makes it on first start: password, arguments of initdb, script; then the server."""
    assert PROGRAMS
    environment = stack.environment("postgres")
    user = next((u for u in pwd.getpwall() if u.pw_name in {"postgres", "nobody"}), None) if os.getuid() == 0 else None
    options: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    data = folder / "cluster"
    data.mkdir()
    if user:
        os.chown(data, user.pw_uid, user.pw_gid)
    secret = data / "password"
    secret.write_text(environment["POSTGRES_PASSWORD"])
    secret.chmod(0o644)
    arguments = ["--username=postgres", f"--pwfile={secret}", *environment["POSTGRES_INITDB_ARGS"].split()]
    command = [str(PROGRAMS / "initdb"), f"--pgdata={data / 'data'}", "--no-sync", *arguments]
    subprocess.run(command, check=True, capture_output=True, cwd="/", **options)
    at = ["-c", f"port={stack.ports['postgres']}", "-c", "unix_socket_directories=", "-c", "fsync=off"]
    stack.start("postgres", [str(PROGRAMS / "postgres"), "-D", str(data / "data"), *at], cwd="/", **options)
    stack.wait("postgres")
    script = [volume.split(":")[0] for volume in files.services["postgres"]["volumes"] if "initdb.d" in volume]
    login = ["--host=127.0.0.1", "--username=postgres", "--set=ON_ERROR_STOP=1"]
    subprocess.run(
        ["psql", *login, f"--file={ROOT / script[0]}"],
        env={**environment, "PGPASSWORD": environment["POSTGRES_PASSWORD"], "PGPORT": str(stack.ports["postgres"])},
        check=True,
        capture_output=True,
    )


def answers(url: str, data: bytes | None = None, **headers: str) -> int:
    """The status of the answer to a request with these headers."""
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def stack(files: Any) -> Iterator[Stack]:
    """All services that are not one-shot, in the order of the compose file, without `serve` and `tidy`."""
    # A folder of pytest's is for its owner alone.
    with (
        tempfile.TemporaryDirectory(prefix="prorec-stack-") as name,
        Stack(files, Path(name)) as stack,
        pytest.MonkeyPatch.context() as patch,
    ):
        folder = Path(name)
        for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            patch.setenv(variable, stack.environment("worker")[variable])
        start_postgres(stack, files, folder)
        moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(stack.ports["minio"])]
        stack.start("minio", moto)
        stack.finish("migrate-mlflow", "migrate-prefect")
        stack.start("prefect")
        stack.finish("bucket")
        stack.start("mlflow")
        stack.wait("prefect")
        stack.finish("deployments")
        stack.start("worker")
        stack.wait("mlflow")
        stack.wait("worker")
        yield stack


def run_full(stack: Stack) -> Run:
    """`prefect deployment run prorec/full` with a tiny experiment, to its end; its run in MLflow."""
    parameters = json.dumps({"experiment": tiny()})
    done = stack.run("worker", "prefect", "deployment", "run", "prorec/full", "--watch", "--params", parameters)
    assert done.returncode == 0 and "Completed" in done.stdout, done.stdout + done.stderr + stack.log("worker")
    client = MlflowClient(stack.url("mlflow"))
    experiment = client.get_experiment_by_name("prorec-demo")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    return next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)


@pytest.fixture(scope="module")
def first(stack: Stack) -> Run:
    """The first run."""
    return run_full(stack)


def stages(run: Run) -> dict[str, tuple[str, str]]:
    """Run and digest of every stage, from the tags of a flow's run."""
    tags = run.data.tags
    return {name: (tags[f"prorec.{name}.run_id"], tags[f"prorec.{name}.digest"]) for name in STAGES}


def uri_of(stack: Stack, run_id: str) -> str:
    """Where the artifact of a stage's run is."""
    return f"{MlflowClient(stack.url('mlflow')).get_run(run_id).info.artifact_uri}/artifact"


def download(stack: Stack, uri: str, to: Path) -> Path:
    """What MLflow's server gives for an artifact's address, or for a file of it."""
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(to), tracking_uri=stack.url("mlflow")))


def objects(stack: Stack) -> tuple[Any, dict[str, int]]:
    """A client of the object store, and what is in the bucket, with sizes."""
    keys = stack.environment("mlflow")
    s3 = boto3.client(
        "s3",
        endpoint_url=keys["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        region_name=keys["AWS_DEFAULT_REGION"],
    )
    return s3, {each["Key"]: each["Size"] for each in s3.list_objects_v2(Bucket="prorec").get("Contents", [])}


def test_artifacts_come_back_through_the_server(stack: Stack, first: Run, tmp_path: Path) -> None:
    assert first.info.status == "FINISHED"
    _, stored = objects(stack)
    for name, (run_id, digest) in stages(first).items():
        uri = uri_of(stack, run_id)
        assert uri.startswith("mlflow-artifacts:/")
        folder = download(stack, uri, tmp_path / name)
        assert verify(folder) == []
        assert Manifest.model_validate(read_json(folder / MANIFEST)).digest == digest
        for path in (each for each in folder.rglob("*") if each.is_file()):
            key = f"{uri.removeprefix('mlflow-artifacts:/')}/{path.relative_to(folder).as_posix()}"
            assert stored[key.lstrip("/")] == path.stat().st_size


def test_a_second_run_is_cached(stack: Stack, first: Run) -> None:
    second = run_full(stack)
    assert second.info.run_id != first.info.run_id and second.info.status == "FINISHED"
    assert stages(second) == stages(first)


def test_a_registered_model_is_loaded_from_there(stack: Stack, first: Run, tmp_path: Path) -> None:
    model = first.data.tags["prorec.model"]
    assert model == "models:/prorec-demo/1"
    client = MlflowClient(stack.url("mlflow"))
    source = client.get_model_version("prorec-demo", "1").source
    location = client.get_logged_model(source.removeprefix("models:/")).artifact_location
    assert location.startswith("mlflow-artifacts:/")
    items = download(stack, f"{uri_of(stack, stages(first)['preprocess'][0])}/items.parquet", tmp_path)
    item = pq.read_table(items)["item_id"][0].as_py()
    done = stack.run("worker", "prorec", "recommend", "--model", model, "--history", item, "--k", "3")
    assert done.returncode == 0 and len(re.findall(r"\bP\d{5}\b", done.stdout)) == 3, done.stdout + done.stderr


def test_only_who_has_the_password_and_calls_them_by_name_is_let_in(stack: Stack) -> None:
    values = stack.environment("worker")
    logins = {
        "mlflow": f"{values['MLFLOW_TRACKING_USERNAME']}:{values['MLFLOW_TRACKING_PASSWORD']}",
        "prefect": values["PREFECT_API_AUTH_STRING"],
    }
    asked = {
        "mlflow": ("/api/2.0/mlflow/experiments/search", {"max_results": 1}),
        "prefect": ("/api/deployments/filter", {}),
    }
    for name, (path, body) in asked.items():
        url, data = f"{stack.url(name)}{path}", json.dumps(body).encode()
        own = {"Authorization": f"Basic {base64.b64encode(logins[name].encode()).decode()}"}
        hosts = {f"{name}:5000": 200, "127.0.0.1:5000": 200, "localhost:5000": 200, "elsewhere.example": 403}
        assert {host: answers(url, data, Host=host, **own) for host in hosts} == hosts
        assert answers(url, data) == answers(url, data, Authorization="Basic cHJvcmVjOng=") == 401
        assert answers(url, data, Origin="http://elsewhere.example", **own) == 403
        assert answers(url, data, Origin=stack.url(name), **own) == 200


def test_each_server_has_a_database_of_its_own(stack: Stack) -> None:
    for owner, secret in (("mlflow", "MLFLOW_DB_PASSWORD"), ("prefect", "PREFECT_DB_PASSWORD")):
        for database in ("mlflow", "prefect"):
            at = [
                "--host=127.0.0.1",
                f"--port={stack.ports['postgres']}",
                f"--username={owner}",
                f"--dbname={database}",
            ]
            tables = "select count(*) from information_schema.tables where table_schema = 'public'"
            done = subprocess.run(
                ["psql", *at, "--tuples-only", f"--command={tables}"],
                env={"PGPASSWORD": stack.variables[secret], "PATH": stack.environment("postgres")["PATH"]},
                capture_output=True,
                text=True,
                check=False,
            )
            if owner == database:
                assert done.returncode == 0 and int(done.stdout) > 20, done.stderr
            else:
                assert "permission denied for database" in done.stderr


def test_the_bucket_may_be_there(stack: Stack) -> None:
    stack.finish("bucket")


def test_no_secret_is_on_a_command_line(stack: Stack, files: Any) -> None:
    secrets = {stack.variables[name] for name, value in files.example.items() if not value}
    for name in files.services:
        if "command" in files.services[name]:
            assert not [word for word in stack.command(name) for secret in secrets if secret in word]


def test_one_machine_at_a_time_makes_a_stage(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.url("mlflow"))
    with wanting(tmp_path) as wants:
        wants.expect_turns(machines=3, rounds=2)
        dies = wants.begin("there", 60, expiry=3, clock=-1e6)
        wants.until("has", dies)
        takes_over = wants.begin("here", 0, expiry=3, clock=1e6)
        wants.until(f"waits-for-{dies.pid}", takes_over)
        dies.kill()
        killed = time.monotonic()
        assert 1 < wants.until("leaves", takes_over) - killed < 20


def test_what_is_lost_is_found(
    stack: Stack, first: Run, artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.url("mlflow"))
    monkeypatch.setenv("PROREC_TRACKING_PATIENCE", "5")
    assert store.verify_all() == (8, [])
    s3, stored = objects(stack)

    def lose(what: str, file: str) -> str:
        key = next(key for key in stored if what in key and key.endswith(f"/{file}"))
        s3.delete_object(Bucket="prorec", Key=key)
        return f"mlflow-artifacts:/{key}: the file is missing"

    for stage, what, file in (
        ("train_generator", "/models/", "model.safetensors"),
        ("quantize", f"/{stages(first)['quantize'][0]}/", MANIFEST),
    ):
        run_id, digest = stages(first)[stage]
        uri = uri_of(stack, run_id)
        ref = ArtifactRef(stage=stage, digest=digest, run_id=run_id, uri=uri)
        assert store.check(ref) == []
        missing = lose(what, file)
        assert store.check(ref) == [missing]
