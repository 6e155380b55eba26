"""What stands before a server and turns away whoever has no business with it.

Knows the headers Host, Origin and Authorization; knows nothing of what it guards. A page of any site can have its
visitor's browser call a server of this machine, by its address or by a name of its own that it has point here: the
first shows in Origin, the second in Host.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hmac
import re
from collections.abc import Callable, Iterable, Mapping

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

_HOST = re.compile(r"(?:[\w.-]+|\[[\da-f:.]+\])(?::\d+)?")
_FORBIDDEN, _UNAUTHORIZED = 403, 401
_HTTP = 80


def loopback(port: int, address: str = "127.0.0.1") -> list[str]:
    """The names under which a server that listens on this machine alone is rightly called.

    Args:
        port: that it listens at.
        address: likewise; a machine's own name is often 127.0.1.1, and not the first of its addresses.
    """
    names = list(dict.fromkeys(["127.0.0.1", "localhost", "[::1]", f"[{address}]" if ":" in address else address]))
    # Browsers and clients leave out the port that HTTP has by itself.
    return [*(f"{name}:{port}" for name in names), *(names if port == _HTTP else ())]


Answer = Callable[[str, int, Mapping[str, str]], Response]
"""Tells who is turned away why, with a status and headers."""


def in_plain_text(problem: str, status: int, headers: Mapping[str, str]) -> Response:
    """A line of text."""
    return PlainTextResponse(f"{problem}\n", status, headers)


class Guard:
    """An ASGI application that lets through to another what may pass.

    Args:
        app: the other.
        hosts: names with ports by which it may be called; a `*` stands for anything, as in `shop.example:*`.
        origins: whose pages may call it besides its own.
        login: `USER:PASSWORD` that every request must give; empty: the application asks itself, or nobody does.
        open_to_all: paths that may be read without it.
        answer: how the application tells problems.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str],
        origins: Iterable[str] = (),
        login: str = "",
        open_to_all: Iterable[str] = (),
        answer: Answer = in_plain_text,
    ) -> None:
        self._app = app
        self._hosts = [each.lower() for each in hosts]
        self._origins = {each.lower() for each in origins}
        self._login = login.encode()
        self._open = frozenset(open_to_all)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
        elif problem := self._foreign(scope):
            await _refuse(scope, receive, send, self._answer(problem, _FORBIDDEN, {}))
        elif self._login and not self._may_enter(scope):
            ask = {"WWW-Authenticate": 'Basic realm="PRORec", charset="UTF-8"'}
            await _refuse(scope, receive, send, self._answer("User and password, please.", _UNAUTHORIZED, ask))
        else:
            await self._app(scope, receive, send)

    def _foreign(self, scope: Scope) -> str:
        """Why a request comes from elsewhere; nothing where it does not."""
        hosts = _headers(scope, b"host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return "This server is not called by this name (Host)."
        for origin in _headers(scope, b"origin"):
            # A page of this server, by the very name that it was opened by, is no other's.
            if origin not in self._origins and origin not in {f"http://{hosts[0]}", f"https://{hosts[0]}"}:
                return "Pages of other servers may not call this one (Origin)."
        return ""

    def _is_ours(self, host: str) -> bool:
        if not _HOST.fullmatch(host):
            return False
        # The brackets of an address of version 6 are no pattern.
        return any(fnmatch.fnmatchcase(host, allowed.replace("[", "[[]")) for allowed in self._hosts)

    def _may_enter(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} and scope["path"] in self._open:
            return True
        given = _headers(scope, b"authorization", lower=False)
        kind, _, code = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        try:
            given_login = base64.b64decode(code.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and hmac.compare_digest(given_login, self._login)


def _headers(scope: Scope, wanted: bytes, *, lower: bool = True) -> list[str]:
    found = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == wanted]
    return [value.lower() for value in found] if lower else found


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Response) -> None:
    # A websocket that is closed before it was accepted is answered by 403.
    await (WebSocketClose(1008) if scope["type"] == "websocket" else answer)(scope, receive, send)
