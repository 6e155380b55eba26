"""A model in a folder of its own: it recommends what it did in the store, and its card says what was measured."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import HfApi

from prorec.tasks.registry.export import CARD, _data, _use, export, push
from prorec_core.artifacts import read_json
from prorec_core.errors import UserError
from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.recommender import Recommender
from tests.tasks.test_kept import KEPT, VERSIONS, register, told


class Hub(BaseHTTPRequestHandler):
    """What the hub answers to somebody who uploads small files."""

    taken: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        """Take a file, or say how it is to be sent."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.asked.append(json.loads(body))
            self._answer({"url": "http://127.0.0.1/ann/shop", "name": "ann/shop"})
        elif "/preupload/" in self.path:
            files = [{"path": each["path"], "uploadMode": "regular"} for each in json.loads(body)["files"]]
            self._answer({"files": [{**each, "shouldIgnore": False} for each in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.taken[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer({"commitUrl": "http://127.0.0.1/ann/shop/commit/1", "commitOid": "1", "pullRequestUrl": None})
        else:
            self._answer({"errors": [], "warnings": []})

    def _answer(self, what: dict[str, Any]) -> None:
        content = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine, and somebody who has a token for it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: HfApi(endpoint=address, token="hf_test"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield Hub
    server.shutdown()
    server.server_close()
    Hub.taken.clear()
    Hub.asked.clear()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_export_needs_no_store(tracked_folder: Path, tmp_path: Path, version: str) -> None:
    files = export(register(version), tmp_path / "shop")
    assert {path.name for path in files} == {
        CARD,
        *(path.name for path in (KEPT / version / "model" / "artifacts" / "bundle").iterdir()),
    }
    recommender = Recommender.load(tmp_path / "shop")
    for then in told(version):
        (now,) = recommender.recommend([then["history"]], len(then["items"]))  # type: ignore[list-item]
        assert [each.item_id for each in now] == then["items"]


def test_the_card_says_what_was_measured(tracked_folder: Path, tmp_path: Path) -> None:
    export(register(VERSIONS[-1]), tmp_path / "shop")
    _, front, text = (tmp_path / "shop" / CARD).read_text().split("---\n", 2)
    metrics = read_json(KEPT / VERSIONS[-1] / "evaluate" / "metrics.json")
    best = metrics["test"][metrics["recommended"]]
    (result,) = yaml.safe_load(front)["model-index"][0]["results"]
    assert {each["type"]: each["value"] for each in result["metrics"]} == {
        name: pytest.approx(best[name], abs=1e-6) for name in ("recall_at_10", "ndcg_at_10")
    }
    low = best["recall_at_10"] - 1.96 * best["recall_at_10_standard_error"]
    assert f"{best['recall_at_10']:.4f} ({low:.4f} to" in text and f"{metrics['protocol']['test_users']} users" in text


def test_the_card_tells_what_is_withdrawn(tmp_path: Path) -> None:
    ids = pa.table({"item_id": ["a", "b", "c", "d"], "train_count": [3, 2, 1, 0]})
    pq.write_table(ids, tmp_path / "items.parquet")
    pq.write_table(ids, tmp_path / "codes.parquet")
    Catalogue.of_training(4).with_withdrawn(np.array([0, 2]), True).save(tmp_path)
    assert "2 of the items are withdrawn" in "".join(_data(tmp_path))
    assert '[["b", "d"]]' in "".join(_use(tmp_path))
    Catalogue.of_training(4).save(tmp_path)
    assert "withdrawn" not in "".join(_data(tmp_path))
    assert '[["a", "b"]]' in "".join(_use(tmp_path))


def test_nothing_is_written_over(tracked_folder: Path, tmp_path: Path) -> None:
    uri = register(VERSIONS[-1])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"full: something is there already\. Name a new folder\."):
        export(uri, tmp_path / "full")
    with pytest.raises(UserError, match="the folder does not exist"):
        export(uri, tmp_path / "no" / "where")
    with pytest.raises(UserError, match="there is no such version of a model"):
        export("prorec-kept/7", tmp_path / "new")
    export(uri, tmp_path / "empty")
    assert {path.name for path in tmp_path.iterdir()} >= {"full", "empty"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_it_is_pushed_where_nobody_else_sees_it(tracked_folder: Path, tmp_path: Path, hub: type[Hub]) -> None:
    files = export(register(VERSIONS[-1]), tmp_path / "shop")
    assert push(tmp_path / "shop", "ann/shop", public=False).endswith("/commit/1")
    assert hub.taken == {path.name: path.read_bytes() for path in files}
    assert hub.asked[0]["visibility"] == "private"
    with pytest.raises(UserError, match=r"--push: 'a b/c/d' names no repository\. Give OWNER/NAME\."):
        push(tmp_path / "shop", "a b/c/d", public=False)


def test_without_a_token_or_a_hub_the_export_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match=r"--push: there is no token .* Set HF_TOKEN"):
        push(tmp_path, "ann/shop", public=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_test")
    with pytest.raises(UserError, match=r"--push ann/shop: the hub took nothing: .* The export is whole in"):
        push(tmp_path, "ann/shop", public=False)
