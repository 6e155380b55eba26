"""Whether the links of a built site lead somewhere within it, and whether a page loads anything from elsewhere.

Knows HTML files; asks no server.
"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

_LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class _Page(HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag == "a" and (link := given.get("href")):
            self.leads.append(link)
        if tag in _LOADING and (link := given.get(_LOADING[tag])):
            self.loads.append(link)


def problems(folder: Path) -> Iterator[str]:
    """What is wrong with the links of the pages in a folder, a sentence each."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        place = path.relative_to(folder)
        for link in page.loads:
            parts = urlsplit(link)
            if parts.netloc or parts.scheme not in {"", "data"}:
                yield f"{place}: loads {link} from elsewhere"
        for link in dict.fromkeys([*page.leads, *page.loads]):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            file, anchor = urldefrag(link)
            target = (path.parent / unquote(urlsplit(file).path)).resolve() if file else path
            if not target.is_file():
                yield f"{place}: a link to {link}, which is not there"
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                yield f"{place}: a link to {link}, which has no such anchor"
    for path in sorted(folder.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        if "url(http" in text.replace('"', "").replace("'", "") or "@import" in text:
            yield f"{path.relative_to(folder)}: loads something from elsewhere"
