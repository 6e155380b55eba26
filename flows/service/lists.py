"""Routes of named lists. Knows HTTP and the store of lists; what the model in use knows of a list it asks the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from prorec.flows.service import schemas
from prorec.flows.service.models import ModelKeeper
from prorec.flows.service.problems import REFUSED, problem
from prorec.tasks.registry.lists import KeptList, ListStore, NoListError, TooManyListsError
from prorec_core.errors import UserError

_TOLD = 20
_NONE = problem("There is no list of this name.")
_DAMAGED = problem("The list is kept, and its file cannot be read.")
_BAD = problem("No list can have this name, or the body is no list.")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": schemas.ListOfItems.model_json_schema(),
                "examples": {"few": {"value": {"items": ["ITEM-1", "ITEM-2"]}}},
            }
        },
    }
}
Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="a-z, 0-9, - and _, no sign first.")]
ResultT = TypeVar("ResultT")


def routes(keeper: ModelKeeper, lists: ListStore) -> APIRouter:
    """PUT, GET and DELETE of a list, and all of them. What takes long is done beside the loop that answers."""
    router = APIRouter(prefix="/lists", tags=["lists"])

    def about(kept: KeptList) -> dict[str, Any]:
        content = kept.content
        told: dict[str, Any] = {
            "name": content.name,
            "items": len(content.items),
            "digest": content.digest,
            "updated": kept.updated,
        }
        if keeper.current is not None:
            unknown = keeper.current.recommender.rules.listed(content)[1]
            told |= {"unknown": len(unknown), "unknown_items": list(unknown[:_TOLD])}
        return told

    @router.get("", responses={401: REFUSED}, summary="All lists")
    async def all_lists() -> schemas.Lists:
        def look_through() -> schemas.Lists:
            found, problems = lists.look_through()
            return schemas.Lists(lists=[schemas.AboutList(**about(kept)) for kept in found], problems=problems)

        return await asyncio.to_thread(look_through)

    @router.put(
        "/{name}",
        responses={400: _BAD, 401: REFUSED, 409: problem("There are as many lists as there may be."),
                   413: problem(f"The body has more than {schemas.MOST_LIST_BYTES} bytes."), 422: _BAD},
        openapi_extra=_BODY,
        summary="Keep a list, in place of the one of this name",
    )  # fmt: skip
    async def put(name: Name, request: Request) -> schemas.AboutList:
        """Ids that the model in use does not know are kept too, for another may: they are counted, the first named."""
        body = await request.body()

        def keep() -> schemas.AboutList:
            try:
                items = schemas.ListOfItems.model_validate_json(body).items
            except ValidationError as error:
                complaints = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_input=False)]
                raise RequestValidationError(complaints) from None
            return schemas.AboutList(**about(lists.put(name, items)))

        try:
            return await asyncio.to_thread(keep)
        except TooManyListsError as error:
            raise HTTPException(409, str(error)) from None

    @router.get(
        "/{name}", responses={401: REFUSED, 404: _NONE, 409: _DAMAGED, 422: _BAD}, summary="A list with its items"
    )
    async def get(name: Name) -> schemas.WholeList:
        def whole() -> schemas.WholeList:
            kept = lists.get(name)
            return schemas.WholeList(**about(kept), item_ids=list(kept.content.items))

        return await _found(whole)

    @router.delete("/{name}", responses={401: REFUSED, 404: _NONE, 422: _BAD}, summary="Forget a list", status_code=204)
    async def delete(name: Name) -> None:
        await _found(lambda: lists.delete(name))

    return router


async def _found(work: Callable[[], ResultT]) -> ResultT:
    try:
        return await asyncio.to_thread(work)
    except NoListError as error:
        raise HTTPException(404, str(error)) from None
    except UserError as error:
        raise HTTPException(409, str(error)) from None
