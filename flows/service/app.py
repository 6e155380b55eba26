"""The service over HTTP: routes, bounds, errors and their documentation.

Knows HTTP; what is recommended comes from the batcher, and the model from its keeper. Histories are never logged.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Annotated, Any

import fastapi
from fastapi import Body, FastAPI, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect

from prorec.flows.access.guard import Guard
from prorec.flows.service import explaining, schemas
from prorec.flows.service.batching import Batcher, Found, Question
from prorec.flows.service.explore import routes as explore_routes
from prorec.flows.service.gate import Door, Gate
from prorec.flows.service.lists import routes as list_routes
from prorec.flows.service.metrics import Metrics
from prorec.flows.service.models import ModelKeeper
from prorec.flows.service.page import routes as page_routes
from prorec.flows.service.problems import (
    NOT_READY,
    REFUSALS,
    RETRY_SECONDS,
    answered,
    failed,
    gone,
    invalid,
    not_followed,
    refused,
    turned_away,
    unavailable,
)
from prorec.tasks.registry.lists import ListStore
from prorec_core.errors import UserError
from prorec_core.generation.rules import Rule

_HOW = """Recommends items to histories of item ids, with a registered model of PRORec.

```sh
curl -s ADDRESS/recommend -H 'content-type: application/json' -d '{"histories": [{"history": ["ITEM"]}]}'
```"""


def create_app(
    keeper: ModelKeeper,
    batcher: Batcher,
    metrics: Metrics,
    lists: ListStore | None = None,
    explainer: Batcher | None = None,
    token: str | None = None,
    homes: Collection[str] = (),
    hosts: Collection[str] = (),
) -> FastAPI:
    """The application around a model and a queue; it starts and ends the queue's thread, not the keeper's.

    Args:
        keeper: the model in use.
        batcher: the queue.
        explainer: the queue of requests that ask for reasons; by default one of a few requests.
        metrics: of the service.
        lists: named lists; by default those of the folder of artifacts.
        token: see `Door`.
        homes: see `Door`.
        hosts: by which names it may be called, as `Guard` reads them; empty: by any.
    """
    lists = ListStore() if lists is None else lists
    explainer = explaining.queue(keeper) if explainer is None else explainer

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        explainer.start()
        metrics.follow_queue(lambda: batcher.waiting)
        yield
        await asyncio.to_thread(batcher.stop)
        await asyncio.to_thread(explainer.stop)

    # Its page /docs loads nothing from elsewhere.
    app = FastAPIOffline(
        title="PRORec",
        version=importlib.metadata.version("prorec"),
        description=_HOW,
        lifespan=lifespan,
        redoc_url=None,
    )
    # The last stands before the others.
    app.add_middleware(Door, token=token, homes=homes)
    if hosts:
        app.add_middleware(Guard, hosts=hosts, answer=turned_away)
    app.add_middleware(Gate, metrics=metrics)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(OSError, refused)
    app.add_exception_handler(Exception, failed)

    app.include_router(list_routes(keeper, lists))

    async def rule_of(asked: schemas.Ruled) -> Rule | None:
        """The rule of a request, worked out beside the thread that answers, so that nobody waits for it there."""
        if asked.only is None and asked.exclude is None:
            return None

        def find() -> Rule | None:
            rule = Rule.of(asked.only, asked.exclude, lists.content)
            if rule is not None and keeper.current is not None:
                keeper.current.recommender.rules.left(rule)
            return rule

        try:
            return await asyncio.to_thread(find)
        except UserError as error:
            raise not_followed(error) from None

    app.include_router(explore_routes(keeper, explainer, metrics, rule_of))
    app.include_router(page_routes())

    @app.post(
        "/recommend",
        responses=REFUSALS,
        response_model_exclude_unset=True,
        summary="Recommend items to each of some histories",
    )
    async def recommend(asked: Annotated[schemas.Request, Body()], request: fastapi.Request) -> schemas.Answer:
        """Items that a user already has are left out, or not, as `keep_seen` says, and else as the model was measured.
        Of a long history the newest items count.

        A history that is empty, or has no item that the model knows, gets the most popular items (`fallback`). Where
        fewer than `k` items are left that a history lacks, the list is shorter, or empty (`missing`). `only` and
        `exclude` say what may be recommended: as long as `k` such items exist, `k` are found. `explain` adds to each
        item why it is there.
        """
        request.state.histories = len(asked.histories)
        if keeper.current is None:
            raise unavailable(metrics, "no_model", "No model is loaded yet.")
        rule = await rule_of(asked)
        question = Question([each.history for each in asked.histories], asked.k, asked.keep_seen, rule)
        found = await answered(explainer if asked.explain else batcher, question, metrics)
        return _answer(asked, found, metrics)

    @app.get("/health", summary="Whether the process runs")
    async def health() -> schemas.Alive:
        return schemas.Alive(status="alive")

    @app.get("/ready", responses={503: NOT_READY}, summary="Whether a model is loaded and warm, and which")
    async def ready() -> schemas.Ready:
        if keeper.current is None:
            raise HTTPException(503, "No model is loaded yet.", {"Retry-After": str(RETRY_SECONDS)})
        version = keeper.current.version
        return schemas.Ready(model=schemas.Model(name=version.name, version=version.version), problem=keeper.problem)

    # What balances load, or looks whether a service is there, may ask for the headers alone.
    for path, answer in {"/health": health, "/ready": ready}.items():
        app.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)

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
    for place, (history, best, unknown) in enumerate(zip(asked.histories, found.lists, found.unknown, strict=True)):
        fallback = len(unknown) == len(set(history.history))
        metrics.fallbacks.inc(fallback)
        metrics.unknown_items.inc(len(unknown))
        items = [
            schemas.Item(rank=rank, item_id=each.item_id, title=each.title, score=each.score)
            for rank, each in enumerate(best, start=1)
        ]
        if found.why is not None:
            for item, why in zip(items, found.why[place], strict=True):
                item.why = why
        missing = asked.k - len(items)
        metrics.short_lists.inc(missing > 0)
        results.append(
            schemas.Result(
                user_id=history.user_id, items=items, missing=missing, unknown_items=list(unknown), fallback=fallback
            )
        )
    model = schemas.Model(name=found.version.name, version=found.version.version)
    if found.left is None:
        return schemas.Answer(model=model, results=results)
    return schemas.Answer(model=model, results=results, rule=explaining.about_rule(found.left))
