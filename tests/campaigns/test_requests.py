"""A few seconds of the campaign of requests, always the same ones; and that it sees what it looks for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from .requests import Asked, Judge, campaign

pytestmark = pytest.mark.pipeline

IDS = ["a", "b", "c"]


def test_a_few_requests_are_answered() -> None:
    figures = campaign(seconds=10, seed=0, most=150)
    assert figures.bad == [], json.dumps(figures.bad, indent=1)
    assert figures.statuses[200] >= 10 and figures.statuses[422] >= 10 and figures.compared >= 5


def _answer(**changes: Any) -> dict[str, Any]:
    items = [
        {"rank": 1, "item_id": "b", "title": "B", "score": -1.0},
        {"rank": 2, "item_id": "c", "title": "C", "score": -2.0},
    ]
    result = {"user_id": None, "items": items, "missing": 0, "unknown_items": [], "fallback": False, **changes}
    return {"model": {"name": "m", "version": "1"}, "results": [result]}


def _judge(judge: Judge, status: int, answer: Any, **headers: str) -> str:
    body = {"histories": [{"history": ["a"]}], "k": 2}
    asked = Asked("sound", content=json.dumps(body).encode(), sound=body)
    return judge.problem(asked, httpx.Response(status, json=answer, headers=headers))


def test_what_no_answer_may_be_is_seen() -> None:
    judge = Judge(IDS)
    assert _judge(judge, 200, _answer()) == _judge(judge, 503, {"detail": "Later."}, **{"retry-after": "1"}) == ""
    first, second = _answer()["results"][0]["items"]
    for wrong in (
        _answer(items=[first]),
        _answer(items=[first, first]),
        _answer(items=[first, {**second, "item_id": "a"}]),
        _answer(items=[first, {**second, "item_id": "z"}]),
        _answer(items=[first, {**second, "rank": 3}]),
        _answer(items=[first, {**second, "score": 0.0}]),
        _answer(items=[{**second, "rank": 1, "score": 0.0}, {**first, "rank": 2}]),
        _answer(items=[{**first, "score": -1.5}, second]),
        _answer(missing=1),
        _answer(unknown_items=["a"]),
        _answer(fallback=True),
        _answer(user_id="x"),
        {"results": []},
    ):
        assert _judge(judge, 200, wrong), wrong
    for status, answer in (
        (500, {"detail": "x"}),
        (503, {"detail": "x"}),
        (404, {"detail": "x"}),
        (422, {"detail": "two\nlines"}),
        (422, {"detail": "x" * 1000}),
        (422, {"error": "x"}),
        (422, {"detail": "refused though it is sound"}),
    ):
        assert _judge(judge, status, answer), status
