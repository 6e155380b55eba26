"""Waiting out a tracking server that is away. Knows which errors pass by themselves; knows nothing of runs."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from prorec.tasks.local.disk_space import full_disk
from prorec.tasks.local.seconds import seconds_of
from prorec_core.errors import UserError, causes

PATIENCE_VARIABLE = "PROREC_TRACKING_PATIENCE"
_LONGEST_PAUSE = 15.0
_REFUSING_CODES = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
_PASSING_CODES = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}
_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class TrackingAwayError(ConnectionError):
    """The tracking server stayed away longer than one waits for it."""


def patience() -> float:
    """Seconds that a stage waits for a tracking server that is away: `PROREC_TRACKING_PATIENCE`, or 600."""
    return seconds_of(PATIENCE_VARIABLE, 600.0)


def is_passing(error: BaseException) -> bool:
    """Whether an error of the tracking store may be gone a moment later: a lost connection, a busy database.

    A full disk is not: somebody has to make room. Nor is what else SQLite says, which MLflow calls unavailable, too.
    """
    import requests
    from mlflow.exceptions import MlflowException, RestException

    if full_disk(error):
        return False
    said = next((str(cause) for cause in causes(error) if isinstance(cause, sqlite3.Error)), None)
    if said is not None:
        return "locked" in said
    for cause in causes(error):
        if isinstance(cause, (ConnectionError, TimeoutError, requests.ConnectionError, requests.Timeout)):
            return True
        # All tries were answered by 408, 429, 500, 502, 503 or 504: by a proxy before a server that is away, or by one
        # without a database.
        if isinstance(cause, requests.exceptions.RetryError):
            return True
        if isinstance(cause, requests.HTTPError) and cause.response is not None:
            return int(cause.response.status_code) >= 500
        if isinstance(cause, MlflowException) and cause.error_code in _PASSING_CODES:
            return True
        if isinstance(cause, RestException):
            return int(cause.get_http_status_code()) >= 500  # type: ignore[no-untyped-call]
    return False


def pauses() -> Iterator[float]:
    """Seconds to pause between tries, ever longer up to a limit."""
    pause = 0.5
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)


def retrying(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`call(*args, **kwargs)`; where the tracking store is away, call again until it answers.

    Raises:
        TrackingAwayError: it stayed away for `patience()` seconds.
        UserError: it asks for a password that it was not given.
    """
    deadline = time.monotonic() + patience()
    for pause in pauses():
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if getattr(error, "error_code", "") in _REFUSING_CODES:
                raise UserError(
                    "the tracking server does not take the user and password that it is given",
                    place="MLFLOW_TRACKING_URI",
                    cure="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; those of the local stack are what "
                    "`prorec status --env` prints",
                ) from error
            if not is_passing(error):
                raise
            if time.monotonic() + pause > deadline:
                raise TrackingAwayError(
                    f"The tracking store did not answer for {patience():.0f} seconds: {error}"
                ) from error
            _log.warning("The tracking store does not answer; trying again in %.1f s (%s)", pause, error)
            time.sleep(pause)
    raise AssertionError("pauses never end")


def paged(search: Any, **words: Any) -> Iterator[Any]:
    """All that one of the client's searches finds, page by page, fetched as they are asked for."""
    token: str | None = None
    while True:
        page = retrying(search, **words, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
