"""Rules and named lists as clients meet them, and who has to give the token."""

from __future__ import annotations

import base64
import errno
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prorec.flows.service import schemas, server
from prorec.flows.service.batching import Loaded, Question, answer
from prorec.tasks.registry import lists as lists_module
from prorec.tasks.registry.lists import ListStore
from prorec_core.errors import UserError
from prorec_core.generation.rules import Choice, Rule

from .conftest import GIVEN, ITEMS, TOKEN, FakeRecommender, Service, version_of

MakeService = Callable[..., Service]


def ask(service: Service, *histories: list[str], **more: Any) -> Any:
    body = {"histories": [{"history": history} for history in histories], **more}
    return service.client.post("/recommend", json=body)


def found(answer: Any) -> list[list[str]]:
    assert answer.status_code == 200, answer.text
    return [[item["item_id"] for item in result["items"]] for result in answer.json()["results"]]


def put(service: Service, name: str, items: list[str]) -> Any:
    return service.client.put(f"/lists/{name}", json={"items": items}, headers=GIVEN)


def test_only_and_exclude_say_what_comes_back(service: Service) -> None:
    assert found(ask(service, [ITEMS[3]], only=ITEMS[2:6], k=3)) == [[ITEMS[2], ITEMS[4], ITEMS[5]]]
    assert found(ask(service, [ITEMS[3]], exclude=ITEMS[:6], k=2)) == [[ITEMS[6], ITEMS[7]]]
    where = {"where": {"price": {"gte": 4, "lt": 8}, "name": ["x", "y"]}}
    assert found(ask(service, [], only=where, exclude={"where": {"price": 5}}, k=9)) == [[ITEMS[4], ITEMS[6], ITEMS[7]]]
    short = ask(service, ITEMS[:3], only=ITEMS[:4], k=2).json()
    assert short["results"][0]["missing"] == 1
    assert short["rule"] == {"allowed": 4, "unknown": 0, "unknown_items": []}
    told = ask(service, [], only=[ITEMS[0], "nobody"], exclude=["none"]).json()["rule"]
    assert told == {"allowed": 1, "unknown": 2, "unknown_items": ["nobody", "none"]}
    assert set(ask(service, []).json()) == {"model", "results"}


def test_a_list_is_kept_named_and_used(service: Service, artifacts_folder: Path) -> None:
    kept = put(service, "in-stock", [*ITEMS[4:8], "later", ITEMS[4]]).json()
    assert (kept["name"], kept["items"], kept["unknown"], kept["unknown_items"]) == ("in-stock", 5, 1, ["later"])
    assert found(ask(service, [ITEMS[4]], only={"list": "in-stock"}, k=9)) == [ITEMS[5:8]]
    assert found(ask(service, [], exclude={"list": "in-stock"}, k=5)) == [[*ITEMS[:4], ITEMS[8]]]
    assert service.client.get("/lists/in-stock").json() == {**kept, "item_ids": [*ITEMS[4:8], "later"]}
    put(service, "in-stock", ITEMS[:1])
    assert found(ask(service, [], only={"list": "in-stock"})) == [ITEMS[:1]]
    put(service, "another", [])
    assert [each["name"] for each in service.client.get("/lists").json()["lists"]] == ["another", "in-stock"]
    assert service.client.delete("/lists/another", headers=GIVEN).status_code == 204
    assert service.client.delete("/lists/another", headers=GIVEN).status_code == 404
    assert ListStore(artifacts_folder / "lists").content("in-stock").items == ITEMS[:1], "another process finds it"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"only": {"list": "none"}}, "only.list: there is no list 'none'. There are none yet."),
        ({"exclude": {"where": {"size": 3}}}, "exclude.where: no column 'size' is kept with the model."),
        ({"only": {"where": {"name": {"gt": "a"}}}}, "only.where.name: a range asks for numbers or dates"),
        ({"only": {"where": {"price": "3"}}}, "only.where.price: '3' is not what the column holds. Give a number."),
        ({"only": ["nobody"]}, "only: no item of the catalogue is left."),
        ({"only": []}, "only: no item of the catalogue is left."),
        ({"exclude": ITEMS}, "exclude: no item of the catalogue is left."),
    ],
)
def test_a_rule_that_cannot_be_followed_is_one_line(service: Service, rule: Any, message: str) -> None:
    answer = ask(service, [], **rule)
    assert answer.status_code == 409 and answer.json()["detail"].startswith(message), answer.text
    assert not service.recommender.asked


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"only": {}}, "only: name items, a list, or conditions (where)."),
        (
            {"only": {"where": {"price": {"above": 3}}}},
            "only.where: of the column 'price': a range has gt, gte, lt, lte",
        ),
        ({"only": {"where": {"price": None}}}, "only.where: of the column 'price': give a value, a list of values"),
        ({"only": {"stock": "x"}}, "only: unknown field."),
        ({"exclude": [""]}, "exclude.items.0: String should have at least 1 character."),
        ({"exclude": "A"}, "exclude: Input should be a valid dictionary"),
        ({"only": {"list": "In Stock"}}, "only.list: String should match pattern"),
    ],
)
def test_what_is_no_rule_is_told_in_one_line(service: Service, rule: Any, message: str) -> None:
    answer = ask(service, [], **rule)
    assert answer.status_code == 422 and answer.json()["detail"].startswith(message), answer.text


@pytest.mark.parametrize("key", ["\\ud800", "\\u0000", "\\u001b[31m", "x" * 5000, ""])
def test_a_column_of_any_name_is_answered(service: Service, key: str) -> None:
    for condition in ("1", "null", '{"gt": "\\ud800"}'):
        body = f'{{"histories": [{{"history": []}}], "only": {{"where": {{"{key}": {condition}}}}}}}'
        answer = service.client.post("/recommend", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (409, 422), answer.text
        assert answer.json()["detail"].isprintable() and len(answer.json()["detail"]) < 2000


def test_bodies_of_lists_have_bounds_of_their_own(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"item {number:06d}" for number in range(100_000)]
    began = time.process_time()
    kept = put(service, "many", [*many, ITEMS[0]])
    assert kept.status_code == 200 and kept.json()["unknown"] == 100_000 and time.process_time() - began < 10
    assert len(kept.json()["unknown_items"]) == 20
    too_large = service.client.put("/lists/many", content=b" " * (schemas.MOST_LIST_BYTES + 1), headers=GIVEN)
    assert too_large.status_code == 413
    for content, start in (
        (b"{", "body: Invalid JSON"),
        (b"\xff", "body: Invalid JSON"),
        (b'{"items": [7]}', "items.0: Input should be a valid string"),
        (b'{"items": ["a"], "more": 1}', "body: unknown field"),
        (b'{"items": ["\\ud800"]}', "body: Invalid JSON"),
    ):
        answer = service.client.put("/lists/many", content=content, headers=GIVEN)
        assert answer.status_code == 422 and answer.json()["detail"].startswith(start), answer.text
    assert service.client.put("/lists/No%2F..", json={"items": []}, headers=GIVEN).status_code in (404, 422)
    monkeypatch.setattr(lists_module, "MOST_LISTS", 1)
    assert put(service, "more", []).status_code == 409
    assert service.client.get("/lists/many").json()["items"] == 100_001


def test_without_a_model_lists_can_be_kept(make_service: MakeService) -> None:
    service = make_service(loaded=False)
    kept = put(service, "early", ITEMS).json()
    assert kept["items"] == len(ITEMS) and kept["unknown"] is None
    assert ask(service, [], only={"list": "early"}).status_code == 503


def test_what_the_machine_refuses_is_one_line(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(service, "stock", ITEMS)
    (ListStore().folder / "folder.json").mkdir()
    assert service.client.get("/lists/folder").status_code == 409
    for method in ("PUT", "DELETE"):
        answer = service.client.request(method, "/lists/folder", content=b'{"items": []}', headers=GIVEN)
        assert answer.status_code == 500 and "a folder stands where a file is" in answer.json()["detail"]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(ListStore().folder))

    monkeypatch.setattr(lists_module, "write_bytes", full)
    answer = put(service, "stock", ITEMS[:2])
    assert (
        answer.status_code == 500
        and "no room is left" in answer.json()["detail"]
        and answer.json()["detail"] in caplog.text
    )
    assert "Traceback" not in caplog.text and service.client.get("/lists/stock").json()["items"] == len(ITEMS)
    monkeypatch.setattr(lists_module, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError("odd")))
    assert put(service, "stock", ITEMS[:2]).json() == {"detail": "The service failed; its log says why."}


def test_a_damaged_list_is_told_and_put_again(service: Service) -> None:
    put(service, "stock", ITEMS)
    path = ListStore().folder / "stock.json"
    wrong = (b"{", b'{"version": 1}', b'{"version": 2, "items": []}', b"[]")
    for content in (*wrong, b'{"version": 1, "items": "abc"}', b'{"version": 1, "items": [7]}'):
        path.write_bytes(content)
        assert ask(service, [], only={"list": "stock"}).status_code == 409
        assert service.client.get("/lists/stock").status_code == 409, "it is there"
    put(service, "other", ITEMS)
    known = service.client.get("/lists").json()
    assert [each["name"] for each in known["lists"]] == ["other"]
    assert len(known["problems"]) == 1 and "stock.json: this list is damaged" in known["problems"][0]
    put(service, "stock", ITEMS[:2])
    assert found(ask(service, [], only={"list": "stock"})) == [ITEMS[:2]]


def test_requests_with_different_rules_are_searched_for_together() -> None:
    model = FakeRecommender(beams=5)
    loaded = Loaded(version_of(1), model)
    rules = [Rule.of(Choice(items=ITEMS[start:]), None, lambda _: None) for start in (3, 5)]  # type: ignore[arg-type, return-value]
    bad = Rule.of(Choice(where={"none": 1}), None, lambda _: None)  # type: ignore[arg-type, return-value]
    asked = [Question([[]], 2, False, rule) for rule in (rules[0], None, bad, rules[1], rules[0])]
    together = answer(loaded, asked)
    assert [(len(histories), k) for histories, k, _ in model.asked] == [(4, 2)]
    assert isinstance(together[2], UserError)
    lists = [[each.item_id for each in one.lists[0]] for one in together if not isinstance(one, UserError)]
    assert lists == [ITEMS[3:5], ITEMS[:2], ITEMS[5:7], ITEMS[3:5]]


def test_a_rule_that_a_successor_cannot_follow_is_told_to_who_gave_it(service: Service) -> None:
    """The model changes between the check of a rule and its turn."""
    service.recommender.go.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, service, [])
        assert service.recommender.busy.wait(30)
        waiting = pool.submit(ask, service, [], only={"where": {"price": 3}})
        while not service.batcher.waiting:
            time.sleep(0.01)
        other = FakeRecommender()
        del other.rules._attributes.by_name["price"]
        service.registry.versions["2"] = other
        service.keeper.use(version_of(2))
        service.recommender.go.set()
        assert first.result(30).status_code == 200
        assert waiting.result(30).status_code == 409


def test_what_lists_leave_is_worked_out_before_a_model_takes_over(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(service, "stock", ITEMS[:5])
    monkeypatch.setattr(service.keeper, "_prepare", lambda model: server._work_out(ListStore(), model))
    following = FakeRecommender()
    service.registry.versions["2"] = following
    service.keeper.use(version_of(2))
    monkeypatch.setattr(following.rules, "_of_ids", lambda _: pytest.fail("it was not worked out"))
    assert found(ask(service, [], only={"list": "stock"})) == [ITEMS[:5]]


def test_a_put_answers_for_its_own_content_whoever_comes_next(
    artifacts_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = ListStore(), ListStore()
    store.put("stock", ["a"])
    write, second = lists_module.write_bytes, threading.Thread(target=lambda: other.delete("stock"))

    def write_and_let_the_other_go(*words: Any) -> None:
        write(*words)
        second.start()
        second.join(0.3)

    monkeypatch.setattr(lists_module, "write_bytes", write_and_let_the_other_go)
    assert store.put("stock", ["b", "c"]).content.items == ["b", "c"]
    second.join(30)
    assert store.names() == []


CHANGES = [("PUT", "/lists/a"), ("DELETE", "/lists/a"), ("POST", "/lists"), ("PATCH", "/recommend")]
READS = [
    *(("GET", path) for path in ("/metrics", "/lists", "/docs", "/openapi.json")),
    *(("POST", path) for path in ("/recommend", "/recommend/")),
]


@pytest.mark.parametrize("homes", [(), ("testserver",)])
def test_who_is_not_at_home_gives_the_token_for_everything(make_service: MakeService, homes: Any) -> None:
    service = make_service(homes=homes)
    for method, path in (*CHANGES, ("GET", "/catalogue/examples"), ("GET", "/catalogue/examples/")):
        assert service.client.request(method, path).status_code == 401
    for method, path in READS:
        status = service.client.request(method, path, json={"histories": [{"history": []}]}).status_code
        assert status == (200 if homes else 401), path
        for header in ({"X-Forwarded-For": "9.9.9.9"}, {"Forwarded": "for=9.9.9.9"}, {"Host": "shop.example"}):
            assert service.client.request(method, path, headers=header).status_code == 401
    for path in ("/health", "/ready"):
        for method in ("GET", "HEAD"):
            answer = service.client.request(method, path)
            assert answer.status_code == 200 and bool(answer.content) == (method == "GET")
        assert service.client.post(path).status_code == 401
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for given in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
        assert service.client.get("/metrics", headers={"Authorization": given}).status_code == 200
    for wrong in ("", "Bearer", "Bearer x", f"Bearer {TOKEN}x", TOKEN, "Basic !", f"Token {TOKEN}", "Bearer \xff"):
        assert service.client.put("/lists/a", headers=[("Authorization", wrong.encode("latin-1"))]).status_code == 401
    asked = service.client.get("/docs", headers={"Host": "shop.example"}).headers["www-authenticate"]
    assert asked.startswith("Basic") and service.client.put("/lists/a").headers["www-authenticate"] == "Bearer"


def test_lists_survive_a_kill_whole(artifacts_folder: Path) -> None:
    """Whoever reads while lists are written sees the one before or the one after."""
    store, done = ListStore(), threading.Event()
    store.put("stock", ["0"] * 3)

    def write() -> None:
        for number in range(40):
            store.put("stock", [f"{number}-{each}" for each in range(2000)])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        items = ListStore().content("stock").items
        assert len(items) in (1, 2000) and len({each.partition("-")[0] for each in items}) == 1
    thread.join()
    assert not list(store.folder.glob(".*"))
    assert json.loads((store.folder / "stock.json").read_text())["version"] == 1
