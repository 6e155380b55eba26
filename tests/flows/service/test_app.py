"""The service as its clients meet it, around a fake recommender."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from prorec.flows.service import schemas
from prorec.flows.service.batching import Loaded
from tests.tiny_model import tiny_recommender

from .conftest import GIVEN, ITEMS, Registry, Service, version_of

MakeService = Callable[..., Service]
KNOWN = ITEMS[:2]


def ask(service: Service, *histories: list[str], **more: Any) -> Any:
    body = {"histories": [{"history": history} for history in histories], **more}
    answer = service.client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_each_history_gets_its_items(service: Service) -> None:
    body = {"histories": [{"user_id": "ann", "history": KNOWN}, {"history": [ITEMS[2], "nobody", "nobody"]}], "k": 3}
    answer = service.client.post("/recommend", json=body).json()
    assert answer["model"] == {"name": "prorec-shop", "version": "1"}
    first, second = answer["results"]
    assert first["user_id"] == "ann" and second["user_id"] is None
    assert [item["item_id"] for item in first["items"]] == ITEMS[2:5]
    assert first["items"][0] == {"rank": 1, "item_id": "item-02", "title": "Item-02", "score": 0.0}
    assert [item["item_id"] for item in second["items"]] == [*ITEMS[:2], ITEMS[3]]
    assert (first["unknown_items"], second["unknown_items"]) == ([], ["nobody"])
    assert not first["fallback"] and not second["fallback"]


def test_seen_items_come_back_where_asked_for(service: Service) -> None:
    assert ask(service, KNOWN, keep_seen=True)["results"][0]["items"][0]["item_id"] == ITEMS[0]


def test_who_has_nearly_all_is_told_what_is_missing(service: Service) -> None:
    whole, nearly, usual = ask(service, ITEMS, ITEMS[:-2], KNOWN, k=3)["results"]
    assert (whole["items"], whole["missing"], whole["fallback"]) == ([], 3, False)
    assert (len(nearly["items"]), nearly["missing"]) == (2, 1)
    assert (len(usual["items"]), usual["missing"]) == (3, 0)
    assert service.metric("prorec_short_lists_total") == 2
    assert ask(service, ITEMS, k=3, keep_seen=True)["results"][0]["missing"] == 0
    described = service.client.get("/openapi.json").json()["components"]["schemas"]["Result"]["properties"]
    assert "whole" in described["missing"]["description"]


def test_nothing_known_is_answered_and_said(service: Service) -> None:
    empty, unknown, known = ask(service, [], ["nobody", "no-one"], KNOWN)["results"]
    assert empty["fallback"] and unknown["fallback"] and not known["fallback"]
    assert len(empty["items"]) == 10 and unknown["unknown_items"] == ["nobody", "no-one"]
    assert service.metric("prorec_fallbacks_total") == 2
    assert service.metric("prorec_unknown_items_total") == 2


ONE = {"history": ["a"]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "histories: Field required."),
        ({"histories": []}, "histories: List should have at least 1 item"),
        ({"histories": [ONE] * (schemas.MOST_HISTORIES + 1)}, "histories: List should have at most 64 items"),
        ({"histories": [ONE], "k": 0}, "k: Input should be greater than or equal to 1."),
        ({"histories": [ONE], "k": 101}, "k: Input should be less than or equal to 100."),
        ({"histories": [ONE], "k": "5"}, "k: Input should be a valid integer."),
        ({"histories": [ONE], "top": 5}, "body: unknown field."),
        ({"histories": [{"items": ["a"]}]}, "histories.0.history: Field required."),
        ({"histories": [{"history": [""]}]}, "histories.0.history.0: String should have at least 1 character."),
        ({"histories": [{"history": ["a" * 257]}]}, "histories.0.history.0: String should have at most 256 characters"),
        ({"histories": [{"history": ["a"] * 1001}]}, "histories.0.history: List should have at most 1000 items"),
        ({"histories": [{"history": [7]}]}, "histories.0.history.0: Input should be a valid string."),
        ([], "body: Input should be a valid dictionary"),
    ],
)
def test_what_is_out_of_bounds_is_told_in_one_line(service: Service, body: Any, message: str) -> None:
    answer = service.client.post("/recommend", json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"detail"} and answer.json()["detail"].startswith(message), answer.json()
    assert not service.recommender.asked


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{", 422), (b'{"histories": [{"history": ["\\ud800"]}]}', 422), (b"\xff", 400), (b"[" * 100_000, 400)],
)
def test_what_is_no_text_or_no_json_is_refused(service: Service, content: bytes, status: int) -> None:
    answer = service.client.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status and set(answer.json()) == {"detail"}
    if content == b"{":
        assert answer.json()["detail"].startswith("body: Invalid JSON: Expecting property name")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused_unread(service: Service, chunked: bool) -> None:
    parts = [b" " * 100_000] * 11
    content = iter(parts) if chunked else b"".join(parts)
    answer = service.client.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json() == {"detail": "The body has more than 1048576 bytes."}


@pytest.mark.parametrize("length", ["9" * 5000, "-5", "many", "", "1e3"])
def test_a_length_that_is_none_is_refused(service: Service, length: str) -> None:
    """A server of HTTP before it refuses these; nothing depends on which one that is."""
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"histories": [{"history": []}]}', "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", length.encode())]
    scope = {"type": "http", "method": "POST", "path": "/recommend", "query_string": b"", "headers": headers}
    asyncio.run(service.app(scope, receive, send))
    assert messages[0]["status"] == 413


def test_without_a_model_it_is_alive_but_not_ready(make_service: MakeService) -> None:
    service = make_service(loaded=False)
    assert service.client.get("/health").json() == {"status": "alive"}
    for answer in (
        service.client.get("/ready"),
        service.client.post("/recommend", json={"histories": [{"history": []}]}),
    ):
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert answer.json() == {"detail": "No model is loaded yet."}


def test_ready_says_which_model(service: Service) -> None:
    assert service.client.get("/ready").json() == {"model": {"name": "prorec-shop", "version": "1"}, "problem": None}


def test_a_full_queue_is_told_and_loses_nothing(make_service: MakeService) -> None:
    service = make_service(most_waiting=2)
    service.recommender.go.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, service, KNOWN)
        assert service.recommender.busy.wait(30)
        others = [pool.submit(ask, service, [ITEMS[number]], k=number) for number in (3, 4)]
        deadline = time.monotonic() + 30
        while service.batcher.waiting < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        refused = service.client.post("/recommend", json={"histories": [{"history": KNOWN}]})
        assert service.metric("prorec_queue_histories") == 2
        service.recommender.go.set()
        answers = [first.result(30), *(other.result(30) for other in others)]
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
    assert refused.json() == {"detail": "Too many requests are waiting."}
    assert [len(answer["results"][0]["items"]) for answer in answers] == [10, 3, 4]
    assert service.metric("prorec_refused_total", reason="queue_full") == 1
    assert service.metric("prorec_requests_total", route="/recommend", method="POST", status="503") == 1


def test_a_failure_is_one_line_without_what_was_asked(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.recommender.error = RuntimeError("out of order")
    answer = service.client.post("/recommend", json={"histories": [{"history": ["secret"]}]})
    assert answer.status_code == 500 and answer.json() == {"detail": "The service failed; its log says why."}
    assert "out of order" in caplog.text and "secret" not in caplog.text
    service.recommender.error = None
    ask(service, KNOWN)


def test_logs_hold_a_line_a_request_and_no_history(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "prorec.flows.service.access"):
        ask(service, KNOWN, [])
        service.client.get("/no%0Asuch")
        service.client.request("MADEUP", "/recommend")
    lines = [record.getMessage() for record in caplog.records if record.name == "prorec.flows.service.access"]
    assert len(lines) == 3
    assert lines[0].startswith("POST /recommend 200 ") and lines[0].endswith(" ms, 2 histories")
    assert lines[1].startswith("other other 404 ") and lines[2].startswith("other ")
    assert ITEMS[0] not in caplog.text and "MADEUP" not in caplog.text and "such" not in " ".join(lines)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_who_is_turned_away_is_told_logged_and_counted(
    make_service: MakeService, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service(hosts=["testserver"])
    with caplog.at_level(logging.INFO, "prorec.flows.service.access"):
        answer = service.client.get("/ready", headers=headers)
    assert answer.status_code == 403 and next(iter(headers)) in answer.json()["detail"]
    assert [line for line in caplog.messages if line.startswith("other other 403 ")]
    assert service.metric("prorec_requests_total", method="other", route="other", status="403") == 1
    assert service.client.get("/ready").status_code == 200


def test_a_client_that_hangs_up_is_no_failure(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    sent_headers = [(name.lower().encode(), value.encode()) for name, value in {"Host": "testserver", **GIVEN}.items()]
    scope = {"type": "http", "method": "PUT", "path": "/lists/few", "headers": sent_headers, "query_string": b""}
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(service.app(scope, receive, send))
    assert sent[0]["status"] == 400 and not [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert service.metric("prorec_requests_total", method="PUT", route="/lists/{name}", status="400") == 1


def test_metrics_are_in_the_format_of_prometheus(service: Service) -> None:
    ask(service, KNOWN, [])
    answer = service.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for line in (
        'prorec_requests_total{method="POST",route="/recommend",status="200"} 1.0',
        'prorec_request_seconds_count{route="/recommend"} 1.0',
        "prorec_batch_histories_sum 2.0",
        "prorec_queue_histories 0.0",
        'prorec_model_info{model_id="m-1",name="prorec-shop",version="1"} 1.0',
        'prorec_model_loads_total{outcome="done"} 1.0',
    ):
        assert line in answer.text.splitlines()


def test_the_examples_of_the_documentation_work(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    body = document["paths"]["/recommend"]["post"]["requestBody"]["content"]["application/json"]
    assert len(body["examples"]) == 3
    for example in body["examples"].values():
        answer = service.client.post("/recommend", json=example["value"])
        assert answer.status_code == 200 and not answer.json()["results"][0]["unknown_items"]
    assert service.client.get("/docs").status_code == 200


@pytest.fixture
def address(artifacts_folder: Path) -> Iterator[str]:
    """A service behind a real server of HTTP."""
    service = Service(Registry(), homes=())
    service.keeper.current = Loaded(version_of(1), tiny_recommender())
    server = uvicorn.Server(uvicorn.Config(service.app, log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


def test_answers_are_as_documented(address: str) -> None:
    httpx.get(f"{address}/health", timeout=30).raise_for_status()
    schema = schemathesis.openapi.from_url(
        f"{address}/openapi.json", config=SchemathesisConfig.from_dict({}), headers=GIVEN
    )
    operations = [each.ok() for each in schema.get_all_operations()]
    paths = {each.path.split("/")[1] for each in operations}
    assert paths == {"recommend", "explore", "catalogue", "lists", "health", "ready", "metrics"}
    statuses = set()
    for operation in operations:
        for mode, examples in ((GenerationMode.POSITIVE, 25), (GenerationMode.NEGATIVE, 25)):
            if mode == GenerationMode.NEGATIVE and not operation.body:
                continue

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: schemathesis.Case) -> None:
                answer = case.call_and_validate(headers=GIVEN)
                assert answer.status_code < 500
                statuses.add(answer.status_code)

            check()
    assert statuses >= {200, 204, 404, 422}
