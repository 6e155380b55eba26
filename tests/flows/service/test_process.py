"""The command `prorec serve` with models that the pipeline's own code registered, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx
import numpy as np
import polars as pl
import pytest
import torch

from prorec.flows.local.embedded import predict
from prorec.flows.service.server import _first_version, _token
from prorec.tasks.execution.stage import Work
from prorec.tasks.local import paths
from prorec.tasks.registry import recommenders
from prorec.tasks.registry.examples import example_users
from prorec.tasks.registry.lists import ListStore
from prorec.tasks.stages.registration import register
from prorec.tasks.tracking import mlflow_runs
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.tracking.retries import TrackingAwayError
from prorec_core.artifacts import MANIFEST
from prorec_core.config import Experiment, GeneratorConfig
from prorec_core.data.dataset import Dataset
from prorec_core.data.embeddings import write_embeddings
from prorec_core.data.sequences import from_lists
from prorec_core.errors import UserError
from prorec_core.generation.base import Items
from prorec_core.generation.trained import TrainedGenerator, build_generator
from prorec_core.generation.trie import CodeTrie
from prorec_core.progress import silent
from prorec_core.quantization.quantized import CodeTable

ROOT = Path(__file__).resolve().parents[3]
NAME = "prorec-tiny"
CHAMPION = f"models:/{NAME}@champion"
IDS = [f"id-{item:02d}" for item in range(24)]
pytestmark = pytest.mark.pipeline


def make_version(folder: Path, seed: int) -> None:
    """Register a generator with weights of `seed`, over 24 items."""
    torch.manual_seed(seed)
    stages = {name: folder / name for name in ("preprocess", "embed_text", "align", "quantize", "out")}
    for stage in stages.values():
        stage.mkdir(parents=True)
    ids = {"item_id": IDS, "title": [f"Title {each}" for each in IDS], "text": IDS, "train_count": range(24, 0, -1)}
    items = pl.DataFrame({"item": np.arange(24, dtype=np.int32), **ids})
    users = pl.DataFrame({"user": [0], "user_id": ["ann"]})
    walk = from_lists([np.arange(5, dtype=np.int32)], 24)
    prices = pl.DataFrame({"price": range(24)})
    Dataset(items, users, walk, np.arange(5), {}, attributes=prices).save(stages["preprocess"])
    codes = np.stack([np.arange(24) // 4, np.arange(24) % 4], axis=1).astype(np.uint16)
    CodeTable(codes, IDS).save(stages["quantize"] / "codes.parquet")
    for stage, files in {
        "align": ["adapter.safetensors", "config.json"],
        "quantize": ["codebooks.safetensors", "quality.json"],
    }.items():
        for file in files:
            (stages[stage] / file).write_text("of no use to a generator that is asked for known items")
    (stages["embed_text"] / "encoder.json").write_text("{}")
    write_embeddings(stages["embed_text"] / "embeddings.parquet", np.ones((24, 8), np.float32))
    for stage, part in {"preprocess": "data", "embed_text": "text", "quantize": "quantize"}.items():
        (stages[stage] / MANIFEST).write_text(json.dumps({"config": {part: {}}}))
    embeddings = torch.randn(24, 16)
    write_embeddings(stages["align"] / "embeddings.parquet", embeddings.numpy())
    config = GeneratorConfig(dim=16, layers=1, decoder_layers=1, heads=2)
    trie = CodeTrie.from_codes(codes)
    generator = build_generator(config, Items(trie, embeddings, {"integrated": embeddings}, [None] * 2), False)
    described = {"generator": config.model_dump(mode="json"), "teachers": ["integrated"], "fusion_weight": 1.0}
    described |= {"ranker": None, "recommended": "fused", "stage_one": None, "beams": 50}
    TrainedGenerator(generator.state_dict(), described, []).save(stages["out"])
    run = TrackedRun.start(mlflow_runs.experiment_id("tiny"), "train_generator")
    run.tags(register(Work(Experiment(name="tiny"), {}, stages, stages["out"], folder, silent, run)))
    run.finish()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with two registered versions and no champion."""
    folder = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROREC_ARTIFACTS", str(folder))
        for seed in (1, 2):
            make_version(tmp_path_factory.mktemp("stages"), seed)
        yield folder


ODD = ("models:/m-0", "here", "models:/3", "models:/latest", "models:a/3", "models:/prorec-shop@champion")


def test_what_is_not_there_is_told_with_what_is(store: Path) -> None:
    known = f"Known: models:/{NAME}/2. `prorec promote models:/{NAME}/2` makes it the champion."
    with pytest.raises(UserError, match="there is no model that can be read") as told:
        recommenders.find(CHAMPION)
    assert str(told.value).endswith(known)
    for uri in ("models:/prorec-shop/1", f"models:/{NAME}/7", *ODD):
        with pytest.raises(UserError, match=f"the model {uri}: .* Known: models:/{NAME}/2.$"):
            recommenders.find(uri)
    assert recommenders.find(f"{NAME}/2") == recommenders.find(f"models:/{NAME}/2")
    client().create_model_version(NAME, "elsewhere")
    with pytest.raises(UserError, match="not registered by a run of prorec"):
        recommenders.find(f"models:/{NAME}/3")
    client().delete_model_version(NAME, "3")


def test_examples_are_users_of_the_data_set(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = recommenders.find(f"models:/{NAME}/1")
    assert example_users(version, 3) == [], "nothing says which data set it was"
    items = pl.DataFrame({"item": np.arange(3, dtype=np.int32), "item_id": ["a", "b", "c"], "title": "", "text": ""})
    items = items.with_columns(train_count=pl.lit(1))
    users = pl.DataFrame({"user": [0, 1], "user_id": ["ann", "bob"]})
    walks = from_lists([np.array([0, 1, 2], np.int32), np.array([2, 1, 0], np.int32)], 3)
    Dataset(items, users, walks, np.arange(6), {}).save(tmp_path)
    monkeypatch.setattr("prorec.tasks.registry.models.Version.artifact", lambda *_: "ref")
    monkeypatch.setattr("prorec.tasks.tracking.store.fetch", lambda _: tmp_path)
    found = sorted((user.user_id, user.history, user.held_back) for user in example_users(version, 3))
    assert found == [("ann", ["a", "b"], "c"), ("bob", ["c", "b"], "a")]


def test_a_damaged_model_is_not_loaded(store: Path) -> None:
    version = recommenders.find(f"models:/{NAME}/1")
    folder = paths.local_path(version.location)
    assert folder is not None
    file = folder / "artifacts" / "bundle" / "items.parquet"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + b"?")
        with pytest.raises(UserError, match=r"items\.parquet: its content is not what the manifest says"):
            recommenders.load(version)
    finally:
        file.write_bytes(whole)
    assert recommenders.load(version).item_ids == IDS


def test_a_model_of_another_version_of_the_software_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = recommenders.find(f"models:/{NAME}/1")
    monkeypatch.setattr("prorec_core.generation.recommender.restore_generator", lambda *_: {}["no such key"])
    with pytest.raises(UserError, match=r"models:/prorec-tiny/1: this version of prorec cannot read the model"):
        recommenders.load(version)


def test_what_was_served_last_is_served_while_the_store_is_away(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = recommenders.find(f"models:/{NAME}/1")
    monkeypatch.setattr(recommenders, "find", lambda uri: (_ for _ in ()).throw(TrackingAwayError("away")))
    with pytest.raises(TrackingAwayError):
        _first_version("models:/prorec-tiny@other")
    recommenders.remember("models:/prorec-tiny@other", version)
    assert _first_version("models:/prorec-tiny@other") == version


def wait_for(server: subprocess.Popen[str], text: str) -> str:
    """Read the log up to a line with this text."""
    assert server.stderr is not None
    read = []
    for line in server.stderr:
        read.append(line)
        if text in line:
            return line
    raise AssertionError("".join(read))


def test_the_life_of_a_server(store: Path) -> None:
    client().set_registered_model_alias(NAME, "champion", "1")
    command = [sys.executable, "-m", "prorec", "serve", "--model", CHAMPION, "--port", "0", "--poll", "0.2"]
    command += ["--allowed-hosts", "shop.example, shop.example:*"]
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stderr=subprocess.PIPE, text=True)
    try:
        address = wait_for(server, "serving").split(" at ")[1].strip()
        with httpx.Client(base_url=address, timeout=30) as web:
            assert web.get("/ready").json() == {"model": {"name": NAME, "version": "1"}, "problem": None}
            for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                assert web.get("/ready", headers=headers).status_code == 403
            assert web.get("/ready", headers={"Host": "shop.example:81"}).status_code == 200
            body = {"histories": [{"history": [*IDS[:3], "nobody"]}, {"history": []}], "k": 5}
            known, empty = web.post("/recommend", json=body).json()["results"]
            best = [
                (row["rank"], row["item_id"], row["title"])
                for row in predict(f"models:/{NAME}/1", "id-00,id-01,id-02", 5)
            ]
            assert [(item["rank"], item["item_id"], item["title"]) for item in known["items"]] == best
            assert known["unknown_items"] == ["nobody"] and not known["fallback"]
            assert empty["fallback"] and [item["item_id"] for item in empty["items"]] == IDS[:5]
            keep_a_list(store, web, body)

            client().set_registered_model_alias(NAME, "champion", "2")
            deadline = time.monotonic() + 60
            versions = []
            while versions[-1:] != ["2"] and time.monotonic() < deadline:
                answer = web.post("/recommend", json=body)
                assert answer.status_code == 200, answer.text
                versions.append(answer.json()["model"]["version"])
            assert set(versions) == {"1", "2"} and versions == sorted(versions)
        finish_a_request_after(server, address)
        assert server.wait(60) == 0
        assert ListStore(store / "lists").content("in-stock").items == IDS[8:12], "it outlives the server"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")
    finally:
        server.kill()
        server.wait()
        assert server.stderr is not None
        server.stderr.close()


def keep_a_list(store: Path, web: httpx.Client, body: dict[str, Any]) -> None:
    """Whoever is on this machine may read, and changes something with the token of its file alone."""
    file = store / "served" / "secret"
    assert file.stat().st_mode & 0o077 == 0
    token = {"Authorization": f"Bearer {file.read_text().strip()}"}
    assert web.get("/").text.startswith("<!doctype html>")
    assert web.put("/lists/in-stock", json={"items": IDS[8:12]}).status_code == 401
    assert web.get("/lists", headers={"Host": "shop.example:81"}).status_code == 401
    assert web.get("/lists", headers={"Host": "shop.example:81", **token}).status_code == 200
    assert web.put("/lists/in-stock", json={"items": IDS[8:12]}, headers=token).json()["unknown"] == 0
    ruled = {**body, "only": {"list": "in-stock", "where": {"price": {"gt": 8}}}}
    for result in web.post("/recommend", json=ruled).json()["results"]:
        assert {item["item_id"] for item in result["items"]} == set(IDS[9:12]) and result["missing"] == 2


@pytest.mark.parametrize(
    ("address", "token", "free"), [("127.0.0.1", "", True), ("0.0.0.0", "", False), ("127.0.0.1", "x" * 16, False)]
)
def test_who_may_read_without_the_token(
    artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch, address: str, token: str, free: bool
) -> None:
    monkeypatch.setenv("PROREC_SERVE_TOKEN", token)
    with socket.create_server((address, 0)) as listener:
        found, homes = _token(listener)
        port = listener.getsockname()[1]
    assert found == (token or (artifacts_folder / "served" / "secret").read_text().strip())
    assert homes == ([f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"] if free else [])


def test_what_is_no_token_is_told(artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for token in ("short", "with blanks in it", "é" * 20):
            monkeypatch.setenv("PROREC_SERVE_TOKEN", token)
            with pytest.raises(UserError, match="PROREC_SERVE_TOKEN: this is no token"):
                _token(listener)
        monkeypatch.delenv("PROREC_SERVE_TOKEN")
        (artifacts_folder / "served").write_text("in the way")
        found, homes = _token(listener)
        assert found is None and len(homes) == 3, "whoever reads may go on"
    with socket.create_server(("0.0.0.0", 0)) as listener, pytest.raises(UserError, match="no token can be kept"):
        _token(listener)


def finish_a_request_after(server: subprocess.Popen[str], address: str) -> None:
    """Begin a request, ask the server to end, and only then send the rest: it is answered."""
    threading.Thread(target=lambda: [None for _ in server.stderr or ()], daemon=True).start()
    body = json.dumps({"histories": [{"history": IDS[:1]}]}).encode()
    parts = urlparse(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        head = f"POST /recommend HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        head += "expect: 100-continue\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        assert b"100 Continue" in connection.recv(1000)
        server.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection((parts.hostname, parts.port), timeout=5).close()
            except OSError:
                break
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
