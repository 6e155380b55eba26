"""How the service says no: one line of JSON, and why. Knows HTTP; knows nothing of what was asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import fastapi
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from prorec.flows.service import schemas
from prorec.flows.service.batching import Batcher, Found, Question, QueueFullError, StoppedError
from prorec.flows.service.metrics import Metrics
from prorec.tasks.local.machine_errors import explained
from prorec_core.errors import UserError

_log = logging.getLogger(__name__)
RETRY_SECONDS = 1
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
FAILED = "The service failed; its log says why."


def problem(description: str, **more: Any) -> dict[str, Any]:
    """An answer of this kind, for the documentation."""
    return {"model": schemas.Problem, "description": description, **more}


NOT_READY = problem("No model is loaded yet, or the service is ending.", headers=RETRY_AFTER)
REFUSED = problem("The service's token is missing or wrong.")
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: problem("The body cannot be read."),
    401: REFUSED,
    409: problem("The rule names no list that is there, asks a column for what it does not hold, or leaves no item."),
    413: problem(f"The body has more than {schemas.MOST_BYTES} bytes."),
    422: problem("A value is missing, unknown or out of its range."),
    500: problem(FAILED),
    503: problem("Too much is waiting, no model is loaded yet, or the service is ending.", headers=RETRY_AFTER),
}


def unavailable(metrics: Metrics, reason: str, detail: str) -> HTTPException:
    """Why nothing can be answered now."""
    metrics.refused.labels(reason).inc()
    return HTTPException(503, detail, {"Retry-After": str(RETRY_SECONDS)})


async def answered(batcher: Batcher, question: Question, metrics: Metrics) -> Found:
    """What a queue answers, or why it does not."""
    try:
        return await asyncio.wrap_future(batcher.submit(question))
    except QueueFullError:
        raise unavailable(metrics, "queue_full", "Too many requests are waiting.") from None
    except StoppedError:
        raise unavailable(metrics, "stopping", "The service is ending.") from None
    except UserError as error:
        raise not_followed(error) from None


def not_followed(error: UserError) -> HTTPException:
    """A rule that the model in use or the lists that are there cannot follow."""
    return HTTPException(409, str(error))


async def invalid(_: fastapi.Request, error: Exception) -> JSONResponse:
    """One line on the first mistake, which repeats nothing of what was sent but names of columns, made visible."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:] if part != "body") or "body"
    if first["type"] == "json_invalid" and isinstance(first["loc"][-1], int):
        # FastAPI has the place of the sign there, and what is wrong with it elsewhere.
        place, text = "body", f"Invalid JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    elif first["type"] == "extra_forbidden":
        place, text = ".".join(str(part) for part in first["loc"][1:-1]) or "body", "unknown field"
    else:
        text = first["msg"].removeprefix("Value error, ")
    return JSONResponse({"detail": f"{place}: {text}."}, 422)


async def refused(_: fastapi.Request, error: Exception) -> JSONResponse:
    """What the machine would not do, as a full disk: in one line here and in the log. All else has failed."""
    if (told := explained(error)) is None:
        raise error
    _log.error("%s", told)
    return JSONResponse({"detail": str(told)}, 500)


async def failed(_: fastapi.Request, error: Exception) -> JSONResponse:
    """What went wrong is in the log."""
    return JSONResponse({"detail": FAILED}, 500)


async def gone(_: fastapi.Request, error: Exception) -> JSONResponse:
    """A client that hung up before all was sent: nobody reads it, but logs and metrics tell it from a failure."""
    del error
    return JSONResponse({"detail": "The client hung up before the whole body was sent."}, 400)


def turned_away(problem: str, status: int, headers: Mapping[str, str]) -> JSONResponse:
    """Who calls the service by a name that is not its own, or from a page of another."""
    return JSONResponse({"detail": problem}, status, headers)
