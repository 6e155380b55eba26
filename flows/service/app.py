"""The service over HTTP: routes, bounds, errors and their documentation.

Knows HTTP; what is recommended comes from the batcher, and the model from its keeper. Histories are never logged.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import fastapi
from fastapi import Body, FastAPI, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prorec.flows.service import schemas
from prorec.flows.service.batching import Batcher, Found, Question, QueueFullError, StoppedError
from prorec.flows.service.metrics import Metrics
from prorec.flows.service.models import ModelKeeper

RETRY_SECONDS = 1
_MOST_DIGITS = 20
_METHODS = {"GET", "POST", "HEAD"}
_access = logging.getLogger("prorec.flows.service.access")
_HOW = """Recommends items to histories of item ids, with a registered model of PRORec.

```sh
curl -s ADDRESS/recommend -H 'content-type: application/json' -d '{"histories": [{"history": ["ITEM"]}]}'
```"""
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


def _problem(description: str, **more: Any) -> dict[str, Any]:
    return {"model": schemas.Problem, "description": description, **more}


_NOT_READY = _problem("No model is loaded yet, or the service is ending.", headers=_RETRY_AFTER)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _problem("The body cannot be read."),
    413: _problem(f"The body has more than {schemas.MOST_BYTES} bytes."),
    422: _problem("A value is missing, unknown or out of its range."),
    500: _problem("The service failed; its log says why."),
    503: _problem("Too much is waiting, no model is loaded yet, or the service is ending.", headers=_RETRY_AFTER),
}


def create_app(keeper: ModelKeeper, batcher: Batcher, metrics: Metrics) -> FastAPI:
    """The application around a model and a queue; it starts and ends the queue's thread, not the keeper's."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        metrics.follow_queue(lambda: batcher.waiting)
        yield
        await asyncio.to_thread(batcher.stop)

    # Its page /docs loads nothing from elsewhere.
    app = FastAPIOffline(
        title="PRORec",
        version=importlib.metadata.version("prorec"),
        description=_HOW,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.add_middleware(Gate, metrics=metrics)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)

    @app.post("/recommend", responses=_REFUSALS, summary="Recommend items to each of some histories")
    async def recommend(asked: Annotated[schemas.Request, Body()], request: fastapi.Request) -> schemas.Answer:
        """Items that a user already has are left out, or not, as `keep_seen` says, and else as the model was measured.
        Of a long history the newest items count.

        A history that is empty, or has no item that the model knows, gets the most popular items (`fallback`). Where
        fewer than `k` items are left that a history lacks, the list is shorter, or empty (`missing`).
        """
        request.state.histories = len(asked.histories)
        if keeper.current is None:
            raise _unavailable(metrics, "no_model", "No model is loaded yet.")
        question = Question([each.history for each in asked.histories], asked.k, asked.keep_seen)
        try:
            found = await asyncio.wrap_future(batcher.submit(question))
        except QueueFullError:
            raise _unavailable(metrics, "queue_full", "Too many requests are waiting.") from None
        except StoppedError:
            raise _unavailable(metrics, "stopping", "The service is ending.") from None
        return _answer(asked, found, metrics)

    @app.get("/health", summary="Whether the process runs")
    async def health() -> schemas.Alive:
        return schemas.Alive(status="alive")

    @app.get("/ready", responses={503: _NOT_READY}, summary="Whether a model is loaded and warm, and which")
    async def ready() -> schemas.Ready:
        if keeper.current is None:
            raise HTTPException(503, "No model is loaded yet.", {"Retry-After": str(RETRY_SECONDS)})
        version = keeper.current.version
        return schemas.Ready(model=schemas.Model(name=version.name, version=version.version), problem=keeper.problem)

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=fastapi.responses.PlainTextResponse)
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    def openapi() -> dict[str, Any]:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        items = keeper.current.recommender.item_ids[:3] if keeper.current else ["ITEM-1", "ITEM-2", "ITEM-3"]
        content = document["paths"]["/recommend"]["post"]["requestBody"]["content"]["application/json"]
        content["examples"] = schemas.example(items)
        return document

    # Not kept: the examples are of the model in use.
    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _answer(asked: schemas.Request, found: Found, metrics: Metrics) -> schemas.Answer:
    results = []
    for history, best, unknown in zip(asked.histories, found.lists, found.unknown, strict=True):
        fallback = len(unknown) == len(set(history.history))
        metrics.fallbacks.inc(fallback)
        metrics.unknown_items.inc(len(unknown))
        items = [
            schemas.Item(rank=rank, item_id=each.item_id, title=each.title, score=each.score)
            for rank, each in enumerate(best, start=1)
        ]
        missing = asked.k - len(items)
        metrics.short_lists.inc(missing > 0)
        results.append(
            schemas.Result(
                user_id=history.user_id, items=items, missing=missing, unknown_items=list(unknown), fallback=fallback
            )
        )
    return schemas.Answer(model=schemas.Model(name=found.version.name, version=found.version.version), results=results)


def _unavailable(metrics: Metrics, reason: str, detail: str) -> HTTPException:
    metrics.refused.labels(reason).inc()
    return HTTPException(503, detail, {"Retry-After": str(RETRY_SECONDS)})


async def _invalid(_: fastapi.Request, error: Exception) -> JSONResponse:
    """One line on the first mistake, which never repeats what was sent: that may be anything, also no text."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:] if part != "body") or "body"
    if first["type"] == "extra_forbidden":
        place, text = ".".join(str(part) for part in first["loc"][1:-1]) or "body", "unknown field"
    else:
        text = first["msg"]
    return JSONResponse({"detail": f"{place}: {text}."}, 422)


async def _failed(_: fastapi.Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "The service failed; its log says why."}, 500)


class Gate:
    """What stands before every route: measures and logs each request, and stops bodies that are too large."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        seen = 0
        state = scope.setdefault("state", {})

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > schemas.MOST_BYTES:
                raise _too_large()
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if _announced_bytes(scope) > schemas.MOST_BYTES:
                error = _too_large()
                await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, watched)
            else:
                await self.app(scope, bounded, watched)
        finally:
            seconds = time.perf_counter() - began
            # What nobody offers would be labels and lines of a stranger's choice.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if route != "other" and scope["method"] in _METHODS else "other"
            self.metrics.requests.labels(route, method, status).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            histories = state.get("histories", 0)
            _access.info("%s %s %d %.1f ms, %d histories", method, route, status, 1000 * seconds, histories)


def _announced_bytes(scope: Scope) -> float:
    """What the request says of its length; no number, or one that no length has, counts as too large."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < _MOST_DIGITS else float("inf")
    return 0


def _too_large() -> HTTPException:
    return HTTPException(413, f"The body has more than {schemas.MOST_BYTES} bytes.")
