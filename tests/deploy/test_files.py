"""docker-compose.yml, Dockerfile and .env.example as they are written: what can be told without an engine."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from prorec.flows.local.running import TRAINING

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")


def test_the_compose_file_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_ports_are_open_to_this_machine_alone(files: Any) -> None:
    published = [port for service in files.services.values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{\w+_PORT:-\d+\}:\d+", port) for port in published)
    assert not [name for name, service in files.services.items() if "network_mode" in service]


def test_only_servers_reach_the_stores(files: Any) -> None:
    near = {name for name, service in files.services.items() if "stores" in service["networks"]}
    assert near == {"postgres", "minio", "bucket", "migrate-mlflow", "migrate-prefect", "mlflow", "prefect"}
    own_of = {"serve": {"PROREC_SERVE_TOKEN"}, "ray-head": {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}}
    for name in ("worker", "tidy", "serve", "deployments", "ray-head"):
        values = files.services[name]["environment"]
        secrets = {key for key in values if re.search("PASSWORD|SECRET|KEY|TOKEN|AUTH", key)}
        own = own_of.get(name, set())
        assert secrets == {"PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD"} | own


def test_both_servers_ask_who_is_there(files: Any) -> None:
    asked = {name: files.services[name]["environment"] for name in ("prefect", "mlflow", "worker")}
    login = "prorec:${PREFECT_PASSWORD:?set it in .env}"
    assert asked["prefect"]["PREFECT_SERVER_API_AUTH_STRING"] == asked["worker"]["PREFECT_API_AUTH_STRING"] == login
    for name in ("mlflow", "worker"):
        assert asked[name]["MLFLOW_TRACKING_PASSWORD"] == "${MLFLOW_PASSWORD:?set it in .env}"
    for name in ("prefect", "mlflow"):
        command = files.services[name]["command"]
        assert command[:4] == ["python", "-m", "prorec.flows.access.guarded", name]
        assert f"--allowed-hosts={name}:*,127.0.0.1:*,localhost:*" in command


def test_nothing_is_left_to_chance_or_to_root(files: Any) -> None:
    built = {service["image"] for service in files.services.values() if "build" in service}
    users = {each.stage: each.rest for each in files.dockerfile if each.word == "USER"}
    for name, service in files.services.items():
        assert service["image"] in built or PINNED.fullmatch(service["image"]), name
        assert service["image"] not in built or service["pull_policy"] == "never", name
        user = service.get("user") or users["minio" if name == "minio" else "prorec"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), name
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"] and "privileged" not in service, name
        assert service["mem_limit"] and service["logging"]["options"]["max-size"], name


def test_every_service_is_waited_for_or_watched(files: Any) -> None:
    for name, service in files.services.items():
        once = name in files.once()
        assert service["restart"] == ("no" if once else "unless-stopped"), name
        assert ("healthcheck" in service) != once, name
        for other, how in service.get("depends_on", {}).items():
            assert other in files.services, name
            assert how["condition"] == (
                "service_completed_successfully" if other in files.once() else "service_healthy"
            ), (name, other)


def test_there_is_no_default_secret(files: Any) -> None:
    variables = files.variables()
    secret = {name for name in variables if re.search("PASSWORD|USER|SECRET|KEY", name)}
    assert len(secret) == 7
    for name in secret:
        assert variables[name] == {(":?", "set it in .env")} and files.example[name] == "", name
    for service in files.services.values():
        for key, value in service.get("environment", {}).items():
            secret_key = re.search("PASSWORD|SECRET|ACCESS_KEY|AUTH_STRING", key)
            assert not secret_key or re.fullmatch(r"(prorec:)?\$\{\w+:\?.+\}", value), key


def test_every_variable_is_in_the_example_with_its_default(files: Any) -> None:
    variables = files.variables()
    assert variables.keys() == files.example.keys()
    # Without one the service makes its own, or, where it is in a profile that not everyone starts, refuses.
    without = {"SERVE_TOKEN", "RAY_TOKEN"}
    assert all(variables[name] == {(":-", "")} and files.example[name] == "" for name in without)
    for name, value in files.example.items():
        if name in without:
            continue
        assert variables[name] == {(":-", value) if value else (":?", "set it in .env")}, name
    with pytest.raises(KeyError, match="POSTGRES_PASSWORD: set it in"):
        files.fill("${POSTGRES_PASSWORD:?set it in .env}", files.example)


def test_the_images_are_made_of_what_is_there(files: Any) -> None:
    stages = [each.stage for each in files.dockerfile if each.word == "FROM"]
    assert stages[-1] == "prorec"
    copied: set[str] = set()
    for each in files.dockerfile:
        if each.word == "FROM":
            source = each.rest.split(" AS ")[0]
            assert source in stages or PINNED.fullmatch(source), each
        assert each.word != "ADD"
        if each.word == "COPY" and "--from=" not in each.rest:
            *sources, _ = shlex.split(each.rest)
            copied |= set(sources)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == sent and all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    linked = {path.resolve().name for path in (ROOT / "prorec").iterdir() if path.is_symlink()}
    assert packages == {"prorec", "prorec_core"} and linked == {"flows", "tasks", "configs", "prefect.yaml"}
    assert packages | linked | {"deploy"} <= copied
    for service in files.services.values():
        if "build" in service:
            assert service["build"]["target"] in stages


def test_a_checkout_of_its_owner_alone_is_readable_in_the_image(files: Any) -> None:
    words = [(each.word, each.rest) for each in files.dockerfile if each.stage == "prorec"]
    copies = [n for n, (word, _) in enumerate(words) if word == "COPY"]
    readable = [n for n, (word, rest) in enumerate(words) if word == "RUN" and rest.startswith("chmod -R a+rX /app ")]
    users = [n for n, (word, _) in enumerate(words) if word == "USER"]
    assert copies[-1] < readable[0] < users[0]


def test_what_is_installed_is_what_was_tested(files: Any) -> None:
    installs = [part for each in files.dockerfile for part in each.rest.split("&&") if "pip install" in part]
    assert len(installs) == 2 and all("-c constraints.txt" in part for part in installs)
    extras = re.search(r"\[([\w,]+)\]", installs[1])
    assert extras and set(extras[1].split(",")) == {"text", "servers", "ray"}
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {"torch", "psycopg2-binary", "asyncpg", "boto3"} <= pinned


def test_a_cluster_takes_nobody_without_its_token_and_whoever_trains_has_what_training_wants(files: Any) -> None:
    head, worker, plain = (files.services[name] for name in ("ray-head", "ray-worker", "worker"))
    for service in (head, worker):
        assert service["profiles"] == ["ray"]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN"] == "${RAY_TOKEN:-}"
        assert "RAY_TOKEN" not in " ".join(service["command"])
        assert set(plain["volumes"]) <= set(service["volumes"]), "the artifacts, and the data"
        assert TRAINING.items() <= service["environment"].items()
    assert TRAINING.items() <= plain["environment"].items()
    assert plain["environment"].items() <= head["environment"].items()
    assert head["command"][-len(plain["command"]) :] == plain["command"]


def test_what_the_services_name_is_there(files: Any) -> None:
    for name, service in files.services.items():
        words = [*service.get("command", []), *service.get("healthcheck", {}).get("test", [])]
        for path in re.findall(r"deploy/[\w.]+", " ".join([*words, *service.get("volumes", [])])):
            assert (ROOT / path).is_file(), name


def test_the_cluster_on_kubernetes_is_that_of_the_compose_file(files: Any) -> None:
    made = {each["kind"]: each for each in yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text())}
    spec = made["RayCluster"]["spec"]
    head, worker = (
        group["template"]["spec"]["containers"][0] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    )
    service = files.services["ray-head"]
    assert head["command"] == service["command"] and head["image"] == worker["image"] == service["image"]
    values = {each["name"]: each.get("value") for each in head["env"]}
    # Where pages are is for people, and the token is KubeRay's to give.
    own = {"PREFECT_UI_URL", "PROREC_MLFLOW_PAGE", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert values.keys() == service["environment"].keys() - own
    for name, value in values.items():
        is_secret = re.search("PASSWORD|AUTH_STRING", name)
        assert value == (None if is_secret else service["environment"][name]), name
    assert spec["authOptions"] == {"mode": "token", "secretName": "prorec-ray"}
    assert spec["rayVersion"] == re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]  # type: ignore[index]
    for container in (head, worker):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["volumeMounts"][0] == {"name": "work", "mountPath": "/var/lib/prorec"}
