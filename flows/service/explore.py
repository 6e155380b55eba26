"""Routes for looking round: items by title, neighbours, example users, and the lists of every score side by side.

Knows HTTP and the service's schemas; what is found comes from the model in use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, cast

import fastapi
from fastapi import APIRouter, Body, HTTPException, Query

from prorec.flows.service import exploring, schemas
from prorec.flows.service.batching import Batcher, Loaded, Question
from prorec.flows.service.explaining import named
from prorec.flows.service.metrics import Metrics
from prorec.flows.service.models import ModelKeeper
from prorec.flows.service.problems import NOT_READY, REFUSALS, REFUSED, answered, problem, unavailable
from prorec.tasks.registry.examples import ExampleUser, example_users
from prorec.tasks.registry.recommenders import RegisteredVersion
from prorec_core.generation.rules import Rule

if TYPE_CHECKING:
    from prorec_core.generation.recommender import Recommender

_NEIGHBOURS, _FOUND, _EXAMPLES, _VALUES = 10, 20, 1, 12
_log = logging.getLogger(__name__)
_READS: dict[int | str, dict[str, object]] = {401: REFUSED, 503: NOT_READY}
ItemId = Annotated[str, Query(min_length=1, max_length=schemas.LONGEST_ID)]


def routes(
    keeper: ModelKeeper,
    explainer: Batcher,
    metrics: Metrics,
    rule_of: Callable[[schemas.Ruled], Awaitable[Rule | None]],
    users: Callable[[RegisteredVersion, int], Sequence[ExampleUser]] = example_users,
) -> APIRouter:
    """What the page of the service asks for."""
    router = APIRouter(tags=["looking round"])

    def in_use() -> Loaded:
        if keeper.current is None:
            raise unavailable(metrics, "no_model", "No model is loaded yet.")
        return keeper.current

    @router.get("/catalogue", responses=_READS, summary="What there is: the model's items, scores and attributes")
    async def catalogue() -> exploring.Catalogue:
        return await asyncio.to_thread(_catalogue, in_use())

    @router.get("/catalogue/search", responses={**_READS, 422: REFUSALS[422]}, summary="Items by words of their titles")
    async def search(text: Annotated[str, Query(max_length=schemas.LONGEST_ID)]) -> exploring.SomeItems:
        model = cast("Recommender", in_use().recommender)
        found = await asyncio.to_thread(model.look.find, text, _FOUND)
        return exploring.SomeItems(items=[named(model, item) for item in found])

    @router.get(
        "/catalogue/item",
        responses={**_READS, 404: problem("The model does not know the item."), 422: REFUSALS[422]},
        summary="An item, its codes in words and its neighbours",
    )
    async def item(item_id: ItemId) -> exploring.Neighbourhood:
        model = cast("Recommender", in_use().recommender)
        known = model.numbered([[item_id]]).items
        if not len(known):
            raise HTTPException(404, "The model does not know this item.")
        return await asyncio.to_thread(_neighbourhood, model, int(known[0]))

    @router.get("/catalogue/examples", responses=_READS, summary="A user of the data set, where it is at hand")
    async def examples() -> exploring.Examples:
        version = in_use().version
        try:
            found = await asyncio.to_thread(users, version, _EXAMPLES)
        except Exception as error:
            # Whatever keeps the data set away, the service goes on without it.
            _log.warning("Example users cannot be read (%s)", error)
            found = []
        return exploring.Examples(
            users=[exploring.Example(user_id=u.user_id, history=u.history, held_back=u.held_back) for u in found]
        )

    @router.post(
        "/explore",
        responses=REFUSALS,
        response_model_exclude_unset=True,
        summary="The lists of every score for one history, with reasons",
    )
    async def explore(asked: Annotated[exploring.Exploration, Body()], request: fastapi.Request) -> exploring.Explored:
        """What each of the model's scores would recommend, the one that recommends first, and popularity last."""
        request.state.histories = 1
        in_use()
        rule = await rule_of(asked)
        question = Question([asked.history], asked.k, asked.keep_seen, rule, every=True)
        found = await answered(explainer, question, metrics)
        assert found.explored is not None
        return found.explored

    return router


def _catalogue(loaded: Loaded) -> exploring.Catalogue:
    model = cast("Recommender", loaded.recommender)
    there = ~model.catalogue.withdrawn
    return exploring.Catalogue(
        model=schemas.Model(name=loaded.version.name, version=loaded.version.version),
        items=int(there.sum()),
        new_items=int((there & (model.train_counts == 0)).sum()),
        recommends=model.scoring.name,
        attributes=[
            exploring.AboutAttribute(name=each.name, kind=each.kind, examples=each.examples(_VALUES))
            for each in model.attributes.by_name.values()
        ],
    )


def _neighbourhood(model: Recommender, item: int) -> exploring.Neighbourhood:
    trie = model.generator.trie
    codes = []
    for level in range(trie.depth):
        shared = model.words.of(level + 1, int(trie.path[item, level]))
        codes.append(schemas.Code(code=int(trie.codes[item, level]), items=shared.items, words=list(shared.words)))
    return exploring.Neighbourhood(
        item=named(model, item),
        times_in_training=int(model.train_counts[item]),
        codes=codes,
        in_codes=[
            exploring.InCodes(**named(model, other).model_dump(), shared_codes=shared)
            for other, shared in model.look.in_codes(item, _NEIGHBOURS)
        ],
        in_text=[
            exploring.InText(**named(model, other).model_dump(), cosine=cosine)
            for other, cosine in model.look.in_text(item, _NEIGHBOURS)
        ],
    )
