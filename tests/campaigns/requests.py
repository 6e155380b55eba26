"""Requests of any kind against the service: each gets an answer that is documented, and equal ones get equal answers.

Knows HTTP, the service's bounds and how requests go wrong; the application runs in this process, around a tiny trained
model. No server of HTTP stands before it, so that what one would refuse arrives too.

    python -m tests.campaigns.requests --seconds 3600 --seed 0

asks until the time is up, many at once, and prints its figures as JSON. Exit status 1 if an answer was none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # Before anything imports them: threads that wait for each other cost more than tiny tensors do.
    os.environ |= {"OMP_NUM_THREADS": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

import httpx

if TYPE_CHECKING:
    from fastapi import FastAPI

    from prorec_core.generation.recommender import Recommender

_AT_ONCE = 24
_MOST_SECONDS = 60.0
_ODD_TEXTS = (
    "",
    " ",
    "\x00",
    "\x1b[31m",
    "\r\n",
    "\u202e",
    "\ufeff",
    "é",
    "e\u0301",
    "日本語",
    "👩\u200d🚀",
    "\U0010ffff",
    "a" * 256,
    "a" * 257,
    "a" * 100_000,
    "[/]",
    "{{7*7}}",
    "' OR 1=1 --",
    "../../etc/passwd",
    "null",
    "NaN",
    "1e400",
)
_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    10.0,
    1.5,
    100,
    101,
    2**63,
    10**400,
    -0.0,
    1e308,
    [],
    [[]],
    {},
    {"": None},
    [None],
    *_ODD_TEXTS,
)
_ODD_BODIES = (
    b"",
    b"{",
    b"[",
    b"null",
    b"0",
    b'""',
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"histories": [{"history": ["\\ud800"]}]}',
    b'{"histories": [{"history": []}], "k": NaN}',
    b'{"histories": [{"history": []}], "k": Infinity}',
    b'{"histories": [{"history": []}], "k": 1e999}',
    b'{"histories": [{"history": []}], "k": ' + b"9" * 5000 + b"}",
    b'{"histories": [{"history": []}], "k": 5, "k": 7}',
    b'{"histories": [{"history": []}]}' + b" " * 2**20,
    b"x" * (2**20 + 1),
    '{"histories": [{"history": ["é"]}]}'.encode("utf-16"),
    '{"histories": [{"history": ["é"]}]}'.encode("latin-1"),
)
_ODD_HEADERS: tuple[dict[str, str], ...] = (
    {"content-type": "text/plain"},
    {"content-type": ""},
    {"content-type": "application/json; charset=utf-16"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "multipart/form-data; boundary=x"},
    {"content-type": "application/" + "x" * 5000},
    {"content-length": "-5"},
    {"content-length": "many"},
    {"content-length": "9" * 5000},
    {"content-length": ""},
    {"transfer-encoding": "chunked"},
    {"content-encoding": "gzip"},
    {"accept": "text/html"},
    {"host": "evil.example"},
    {"origin": "http://evil.example"},
    {"expect": "100-continue"},
    {"range": "bytes=0-1"},
    {"x-forwarded-for": "\x1b[31m"},
)
_PATHS = (
    "/recommend",
    "/health",
    "/ready",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/lists",
    "/lists/a",
    "/",
    "/recommend/",
    "/../x",
    "/%00",
    "/é",
)
_METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "MADEUP")
_DECLARED = {400, 401, 409, 413, 422, 503}
"""What `/recommend` may answer besides 200; elsewhere routes that are not there get 404 and 405 too."""
_RULES: tuple[Any, ...] = (
    {"items": ["nobody"]},
    {"list": "none"},
    {"where": {"price": {"gte": 3, "lt": "x"}}},
    {"items": [], "list": "none", "where": {"a": True, "b": [1, "2"]}},
)


@dataclass
class Asked:
    """A request, and what is known of its answer.

    Attributes:
        kind: how it was made.
        method, path, headers, content: the request; content as parts where it comes in pieces.
        sound: the body, where it is within all bounds: it must be answered.
    """

    kind: str
    method: str = "POST"
    path: str = "/recommend"
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    content: bytes | list[bytes] = b""
    sound: dict[str, Any] | None = None


@dataclass
class Figures:
    """What a campaign came to: requests by kind and by status, what no answer may be, and the slowest in seconds."""

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    bad: list[dict[str, Any]] = field(default_factory=list)
    compared: int = 0
    slowest: float = 0.0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values."""
        return {
            "requests": sum(self.kinds.values()),
            "kinds": dict(self.kinds.most_common()),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "answers compared with an earlier equal request": self.compared,
            "at once": _AT_ONCE,
            "slowest": round(self.slowest, 2),
            "seconds": round(self.seconds),
            "bad": self.bad,
        }


class Maker:
    """Makes requests of all kinds, the same for the same seed."""

    def __init__(self, item_ids: Sequence[str], seed: int) -> None:
        self._ids = list(item_ids)
        self._chance = random.Random(seed)
        self._repeated: list[dict[str, Any]] = []

    def next(self) -> Asked:
        """Another request."""
        kinds = (
            self._sound,
            self._again,
            self._wrong_value,
            self._wrong_bytes,
            self._odd_body,
            self._odd_header,
            self._odd_route,
        )
        return self._chance.choices(kinds, (5, 3, 6, 3, 2, 1, 1))[0]()

    def _body(self) -> dict[str, Any]:
        chance = self._chance
        histories = []
        for _ in range(chance.choice((1, 1, 1, 2, 3, 10, 64))):
            length = chance.choice((0, 1, 2, 5, 20, len(self._ids), 1000))
            known = chance.choices(self._ids, k=length) if length > len(self._ids) else chance.sample(self._ids, length)
            odd = [text for text in _ODD_TEXTS if 0 < len(text) <= 256]
            history = [chance.choice(odd) if chance.random() < 0.05 else item for item in known]
            histories.append({"history": history} | ({"user_id": chance.choice(odd)} if chance.random() < 0.3 else {}))
        body: dict[str, Any] = {"histories": histories}
        if chance.random() < 0.8:
            body["k"] = chance.choice((1, 2, 10, 50, 100, 10.0))
        if chance.random() < 0.3:
            body["keep_seen"] = chance.random() < 0.5
        return body

    def _sound(self) -> Asked:
        body = self._body()
        if len(self._repeated) < 200:
            self._repeated.append(body)
        return Asked("sound", content=json.dumps(body).encode(), sound=body)

    def _again(self) -> Asked:
        """The histories of earlier requests once more, in other company: nobody's answer depends on who else asks."""
        if not self._repeated:
            return self._sound()
        earlier = self._chance.choice(self._repeated)
        histories = [self._chance.choice(earlier["histories"]) for _ in range(self._chance.choice((1, 2, 7)))]
        body = {**earlier, "histories": histories}
        return Asked("again", content=json.dumps(body, ensure_ascii=False).encode(), sound=body)

    def _wrong_value(self) -> Asked:
        body: Any = json.loads(json.dumps(self._body()))
        if self._chance.random() < 0.5:
            body[self._chance.choice(("only", "exclude"))] = self._chance.choice((*_RULES, self._ids[:3]))
        for _ in range(self._chance.choice((1, 1, 2, 5))):
            body = self._changed(body)
        return Asked("wrong value", content=json.dumps(body).encode())

    def _changed(self, value: Any) -> Any:
        """The value with something odd somewhere in it."""
        chance = self._chance
        if isinstance(value, dict) and value and chance.random() < 0.8:
            name = chance.choice(list(value))
            match chance.randrange(4):
                case 0:
                    return {each: inner for each, inner in value.items() if each != name}
                case 1:
                    return {**value, chance.choice(_ODD_TEXTS): chance.choice(_ODD_VALUES)}
                case _:
                    return {**value, name: self._changed(value[name])}
        if isinstance(value, list) and value and chance.random() < 0.8:
            place = chance.randrange(len(value))
            match chance.randrange(4):
                case 0:
                    return value * chance.choice((0, 2, 70))
                case _:
                    return [*value[:place], self._changed(value[place]), *value[place + 1 :]]
        return chance.choice(_ODD_VALUES)

    def _wrong_bytes(self) -> Asked:
        chance, content = self._chance, bytearray(json.dumps(self._body()).encode())
        for _ in range(chance.choice((1, 2, 10))):
            place = chance.randrange(len(content))
            match chance.randrange(4):
                case 0:
                    content[place] ^= 1 << chance.randrange(8)
                case 1:
                    del content[place : place + chance.randrange(1, 20)]
                case 2:
                    content[place:place] = bytes(chance.choices(b'{}[],:"\\\x00\xff9eE.-', k=chance.randrange(1, 9)))
                case _:
                    del content[place:]
            if not content:
                break
        return Asked("wrong bytes", content=bytes(content))

    def _odd_body(self) -> Asked:
        content = self._chance.choice(_ODD_BODIES)
        if self._chance.random() < 0.5:
            size = self._chance.choice((1000, 50_000))
            return Asked("odd body", content=[content[at : at + size] for at in range(0, len(content), size)])
        return Asked("odd body", content=content)

    def _odd_header(self) -> Asked:
        body = json.dumps(self._body()).encode()
        headers = {"content-type": "application/json", **self._chance.choice(_ODD_HEADERS)}
        return Asked("odd header", headers=headers, content=body)

    def _odd_route(self) -> Asked:
        path = self._chance.choice(_PATHS) + self._chance.choice(("", "", "?k=5", "?" + "x" * 5000, "?\x1b"))
        method = self._chance.choice(_METHODS)
        return Asked("odd route", method, path, content=json.dumps(self._body()).encode())


class Judge:
    """Says what is wrong with an answer, and remembers what was answered before."""

    def __init__(self, item_ids: Sequence[str]) -> None:
        self._known = set(item_ids)
        self._before: dict[str, list[tuple[str, float]]] = {}
        self.compared = 0

    def problem(self, asked: Asked, answer: httpx.Response) -> str:
        """What no answer may be; nothing where it is as it should be."""
        status = answer.status_code
        if status >= 500 and not (status == 503 and answer.headers.get("retry-after")):
            return f"status {status}: {answer.text[:200]}"
        if asked.kind == "odd route":
            return ""
        if status == 200:
            return self._result(answer.json(), json.loads(asked.content) if isinstance(asked.content, bytes) else {})
        if status not in _DECLARED:
            return f"status {status} is not declared"
        found = answer.json()
        if set(found) != {"detail"} or not isinstance(found["detail"], str) or "\n" in found["detail"]:
            return f"status {status} says {answer.text[:200]}"
        if len(found["detail"]) > 500:
            return f"status {status} says {len(found['detail'])} characters"
        if asked.sound is not None and status != 503:
            return f"refused with {status}: {found['detail']}"
        return ""

    def _result(self, found: dict[str, Any], body: dict[str, Any]) -> str:
        if not body:
            return ""
        k, keep = int(body.get("k", 10)), body.get("keep_seen", False)
        if len(found["results"]) != len(body["histories"]):
            return f"{len(found['results'])} results to {len(body['histories'])} histories"
        for one, result in zip(body["histories"], found["results"], strict=True):
            history, items = one["history"], result["items"]
            ids, scores = [each["item_id"] for each in items], [each["score"] for each in items]
            owned = set() if keep else set(history) & self._known
            wanted = min(k, len(self._known - owned))
            if len(ids) != wanted or result["missing"] != k - wanted:
                return f"{len(ids)} items and {result['missing']} missing instead of {wanted} and {k - wanted}"
            if len(set(ids)) != len(ids) or not set(ids) <= self._known or owned & set(ids):
                return f"the items {ids}"
            if [each["rank"] for each in items] != list(range(1, len(ids) + 1)):
                return "ranks do not count from 1"
            if not all(map(math.isfinite, scores)) or sorted(scores, reverse=True) != scores:
                return f"the scores {scores}"
            if result["unknown_items"] != [each for each in dict.fromkeys(history) if each not in self._known]:
                return f"unknown items {result['unknown_items']}"
            if result["fallback"] != (not set(history) & self._known) or result["user_id"] != one.get("user_id"):
                return f"fallback {result['fallback']}, user {result['user_id']}"
            if problem := self._as_before(json.dumps([history, k, keep]), list(zip(ids, scores, strict=True))):
                return problem
        return ""

    def _as_before(self, key: str, now: list[tuple[str, float]]) -> str:
        before = self._before.setdefault(key, now)
        if before is now:
            return ""
        self.compared += 1
        if [item for item, _ in before] != [item for item, _ in now]:
            return f"another answer than before: {before} and {now}"
        if any(abs(first - second) > 1e-4 for (_, first), (_, second) in zip(before, now, strict=True)):
            return f"other scores than before: {before} and {now}"
        return ""


def make_app(recommender: Recommender) -> FastAPI:
    """The service around a model, without a registry."""
    from prorec.flows.service import schemas
    from prorec.flows.service.app import create_app
    from prorec.flows.service.batching import Batcher, Found, Loaded, Question, answer
    from prorec.flows.service.metrics import Metrics
    from prorec.flows.service.models import ModelKeeper
    from prorec.tasks.registry.recommenders import RegisteredVersion
    from prorec_core.errors import UserError

    version = RegisteredVersion(name="prorec-campaign", version="1", model_id="m-1", location="", manifest_sha256="")
    metrics = Metrics()
    keeper = ModelKeeper("models:/prorec-campaign@champion", metrics)
    keeper.current = Loaded(version, recommender)

    def answer_all(questions: Sequence[Question]) -> list[Found | UserError]:
        assert keeper.current is not None
        return answer(keeper.current, questions)

    batcher = Batcher(answer_all, 512, schemas.MOST_HISTORIES, metrics.observe_batch)
    return create_app(keeper, batcher, metrics, homes=["x"])


async def _parts(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def _ask_all(app: FastAPI, recommender: Recommender, seconds: float, seed: int, most: int | None) -> Figures:
    figures, began = Figures(), time.monotonic()
    maker, judge = Maker(recommender.item_ids, seed), Judge(recommender.item_ids)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)

    async def ask(client: httpx.AsyncClient) -> None:
        while time.monotonic() - began < seconds and (most is None or sum(figures.kinds.values()) < most):
            asked = maker.next()
            figures.kinds[asked.kind] += 1
            start = time.monotonic()
            content = asked.content if isinstance(asked.content, bytes) else _parts(asked.content)
            try:
                request = client.build_request(asked.method, asked.path, headers=asked.headers, content=content)
            except (ValueError, httpx.InvalidURL):
                figures.kinds["not sent"] += 1
                continue
            try:
                answer = await client.send(request)
                problem = judge.problem(asked, answer)
                figures.statuses[answer.status_code] += 1
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            took = time.monotonic() - start
            figures.slowest = max(figures.slowest, took)
            if took > _MOST_SECONDS:
                problem = problem or f"took {took:.0f} seconds"
            if problem:
                figures.bad.append({"request": repr(asked)[:2000], "problem": problem[:2000]})

    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        await asyncio.gather(*(ask(client) for _ in range(_AT_ONCE)))
    figures.compared = judge.compared
    figures.seconds = time.monotonic() - began
    return figures


def campaign(seconds: float, seed: int, most: int | None = None) -> Figures:
    """Ask until the time is up, or there were so many requests.

    Args:
        seconds: no request is made after these; making the model comes before.
        seed: of the requests.
        most: requests at most.
    """
    from .configurations import make_recommender

    with tempfile.TemporaryDirectory(prefix="prorec-campaign-") as folder:
        recommender = make_recommender(Path(folder))
        return asyncio.run(_ask_all(make_app(recommender), recommender, seconds, seed, most))


def main() -> None:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    figures = campaign(chosen.seconds, chosen.seed)
    print(json.dumps(figures.as_json(), indent=1))
    sys.exit(bool(figures.bad))


if __name__ == "__main__":
    main()
