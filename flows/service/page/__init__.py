"""The page of the service: files that a browser gets as they are, and what it may do with them.

Knows names and kinds of files; knows nothing of models. Nothing is loaded from elsewhere, no script stands in the page
itself, and what the page shows of items it sets as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import fastapi
from fastapi import APIRouter, HTTPException, Response

_FOLDER = Path(__file__).parent
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> APIRouter:
    """`/` and the files beside it."""
    files = {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _KINDS}
    router = APIRouter(include_in_schema=False)

    def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "There is no such file.")
        return Response(files[name], headers={**_HEADERS, "Content-Type": _KINDS[Path(name).suffix]})

    @router.get("/")
    async def index() -> Response:
        return file("index.html")

    @router.get("/page/{name}")
    async def part(name: Annotated[str, fastapi.Path(max_length=100)]) -> Response:
        return file(name)

    return router
