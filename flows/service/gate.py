"""What stands before every route: each request measured and logged, bodies bounded, and whoever must say who they are
asked for the service's token.

Knows HTTP and which paths change something; knows nothing of what routes do. Histories are never logged.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import time
from collections.abc import Collection

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prorec.flows.service import schemas
from prorec.flows.service.metrics import Metrics

_MOST_DIGITS = 20
_METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE"}
_READS = {"GET", "HEAD", "OPTIONS"}
_access = logging.getLogger("prorec.flows.service.access")


class Gate:
    """Measures and logs each request, and stops bodies that are too large."""

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
        is_list = scope["method"] == "PUT" and scope["path"].startswith("/lists/")
        most = schemas.MOST_LIST_BYTES if is_list else schemas.MOST_BYTES

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise _too_large(most)
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if _announced_bytes(scope) > most:
                error = _too_large(most)
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


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"The body has more than {most} bytes.")


class Door:
    """Asks for the service's token: always of whoever would change something or read what persons did, and of everybody
    where it is not enough to be on this machine.

    Args:
        app: what stands behind.
        token: as `Authorization: Bearer TOKEN`, or as the password of a browser's login; None: nobody may change
            anything or read what persons did, and nothing else asks for one.
        homes: values of Host by which the machine itself calls a service that no other can reach; who calls it so, and
            not through a proxy, may read without a token. Empty: nobody may.
    """

    _OPEN = frozenset({"/", "/health", "/ready"})
    _PAGE = "/page/"
    _ASKS = frozenset({"/recommend", "/explore"})
    """What is read by POST, since the question is long."""
    _OF_PERSONS = frozenset({"/catalogue/examples"})
    """Histories of the data set's users, which other accounts of this machine may have no right to."""
    _IN_A_BROWSER = frozenset({"/docs", "/openapi.json"})
    _FORWARDED = frozenset(
        {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
    )

    def __init__(self, app: ASGIApp, token: str | None, homes: Collection[str]) -> None:
        self.app = app
        self.token = token
        self.homes = frozenset(homes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_enter(scope):
            await self.app(scope, receive, send)
            return
        kind = 'Basic realm="PRORec", charset="UTF-8"' if scope["path"] in self._IN_A_BROWSER else "Bearer"
        detail = "This needs the service's token (Authorization: Bearer TOKEN)."
        await JSONResponse({"detail": detail}, 401, {"WWW-Authenticate": kind})(scope, receive, send)

    def _may_enter(self, scope: Scope) -> bool:
        # With a slash at its end a path is one that the routes send on.
        path = scope["path"].rstrip("/") or "/"
        changes = scope["method"] not in _READS and not (scope["method"] == "POST" and path in self._ASKS)
        freely = path in self._OPEN or scope["path"].startswith(self._PAGE) or self._is_at_home(scope)
        return (freely and not changes and path not in self._OF_PERSONS) or self._is_given(scope)

    def _is_at_home(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and hosts[0] in self.homes and not self._FORWARDED & {n for n, _ in scope["headers"]}

    def _is_given(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if self.token is None or len(given) != 1:
            return False
        kind, _, code = given[0].partition(b" ")
        if kind.lower() == b"basic":
            try:
                code = base64.b64decode(code.strip(), validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return False
        elif kind.lower() != b"bearer":
            return False
        return hmac.compare_digest(code.strip(), self.token.encode())
