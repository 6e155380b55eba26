"""The pages of the site, gathered in one folder as Sphinx reads them.

Knows which files are pages, and how their links change when they stand side by side; knows nothing of Sphinx.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from docsite import reference

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
START = "index.md"
_OUTSIDE_DOCS = {"README.md": START, "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_SECTIONS = {
    "Learn": ("Start <self>", "quickstart", "method"),
    "Use": ("data", "fitting", "operations"),
    "Reference": ("configuration", "cli", "api", "modules/index"),
    "Results": ("Reproduction <reproduction>", "Experiments <experiments>", "performance", "reliability"),
    "Project": ("contributing", "changelog"),
}
"""The pages in the order in which the site shows them; what docs/ has besides comes last under `Use`."""
_MADE = {
    "configuration.md": reference.configuration,
    "cli.md": reference.command_line,
    "api.md": reference.python_api,
}
_LINK = re.compile(r"(\]\()(?![a-z]+:)([^)#\s]*)(#[^)\s]*)?(\))")
_PICTURE = re.compile(r"^!\[([^\]]*)\]\((pictures/[\w-]+\.svg)\)$", re.M)
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.M | re.S)
_STYLE = re.compile(r"\s*<style>.*?</style>", re.S)


class BrokenPageError(Exception):
    """A page whose links lead nowhere, or that is not written as it has to be."""


def pages() -> dict[str, str]:
    """The pages that people write: by path in the repository the name in the site."""
    of_docs = [path for suffix in ("md", "ipynb") for path in sorted(DOCS.glob(f"*.{suffix}"))]
    return _OUTSIDE_DOCS | {path.relative_to(ROOT).as_posix(): path.name for path in of_docs}


def gather(folder: Path) -> None:
    """Write all pages and what they show into an empty folder.

    Raises:
        BrokenPageError: a link to a file that is no page, or to nothing; a page that is made and written, too.
    """
    own = pages()
    made = {name: make() for name, make in _MADE.items()} | reference.modules()
    if twice := made.keys() & set(own.values()):
        raise BrokenPageError(f"{', '.join(twice)}: made from the code, and written in docs/, too")
    for place, name in own.items():
        text = (ROOT / place).read_text(encoding="utf-8")
        target = folder / name
        if name.endswith(".ipynb"):
            target.write_text(_notebook(text, place, own, folder), encoding="utf-8")
        else:
            target.write_text(_page(text, place, own, folder), encoding="utf-8")
    for name, text in made.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    with (folder / START).open("a", encoding="utf-8") as stream:
        stream.write(
            "\n" + "\n".join(_contents({Path(name).with_suffix("").as_posix() for name in [*own.values(), *made]}))
        )


def _contents(names: set[str]) -> Iterator[str]:
    listed = {_name(entry) for section in _SECTIONS.values() for entry in section}
    inner = {name for name in names if "/" in name}
    others = sorted(names - listed - inner - {Path(START).stem})
    for title, section in _SECTIONS.items():
        shown = [entry for entry in section if _name(entry) in {*names, "self"}] + (others if title == "Use" else [])
        yield f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(shown) + "\n```\n"


def _name(entry: str) -> str:
    """The page of an entry that may have a title of its own before it."""
    return entry.rpartition("<")[2].removesuffix(">")


def _notebook(text: str, place: str, own: Mapping[str, str], folder: Path) -> str:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = _page("".join(cell["source"]), place, own, folder)
    return json.dumps(notebook)


def _page(text: str, place: str, own: Mapping[str, str], folder: Path) -> str:
    """A page's text with links as they are in the site, and its drawings within it; what it shows is copied."""

    def link(found: re.Match[str]) -> str:
        opening, path, anchor, end = found[1], found[2], found[3] or "", found[4]
        return f"{opening}{_in_site(path, place, own, folder) if path else ''}{anchor}{end}"

    parts, last = [], 0
    for fence in [*_FENCE.finditer(text), None]:
        prose = text[last : fence.start() if fence else len(text)]
        parts.append(_LINK.sub(link, _PICTURE.sub(lambda found: _drawing(found[1], found[2]), prose)))
        if fence:
            parts.append(fence[0])
            last = fence.end()
    return "".join(parts)


def _in_site(path: str, place: str, own: Mapping[str, str], folder: Path) -> str:
    target = (ROOT / place).parent.joinpath(path).resolve()
    if not target.is_relative_to(ROOT) or not target.is_file():
        raise BrokenPageError(f"{place}: a link to {path}, which is not there")
    inside = target.relative_to(ROOT).as_posix()
    if inside in own:
        return own[inside]
    if target.suffix not in {".png", ".svg", ".json"}:
        raise BrokenPageError(f"{place}: a link to {path}, which is no page of the site")
    shutil.copyfile(target, folder / target.name)
    return target.name


def _drawing(words: str, path: str) -> str:
    """A drawing as part of the page, so that its colours follow the page's."""
    drawn = _STYLE.sub("", (DOCS / path).read_text(encoding="utf-8")).strip()
    return f'```{{raw}} html\n<figure class="drawing" role="img" aria-label="{words}">\n{drawn}\n</figure>\n```'
