"""The site's pages: gathered with links that lead somewhere, made from the code, checked once built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.main import get_command

from docsite import links, pictures, reference, sources
from docsite.__main__ import put
from prorec.flows.cli import app
from prorec_core.config import Experiment


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    sources.gather(folder)
    return folder


def test_every_page_that_people_write_is_in_the_site_and_every_page_is_listed(gathered: Path) -> None:
    own = {path.name for path in sources.DOCS.iterdir() if path.suffix in {".md", ".ipynb"}}
    pages = {path.relative_to(gathered).as_posix() for path in gathered.rglob("*") if path.suffix in {".md", ".ipynb"}}
    assert own <= pages and {"index.md", "contributing.md", "changelog.md", "api.md", "cli.md"} <= pages
    contents = (gathered / "index.md").read_text() + (gathered / "modules" / "index.md").read_text()
    listed = set(re.findall(r"^(?:.* <)?([\w/-]+)>?$", contents, re.M))
    names = {Path(page).with_suffix("").as_posix().removeprefix("modules/") for page in pages} - {"index"}
    assert names <= listed


def test_links_are_those_of_the_site_and_drawings_stand_in_their_page(gathered: Path) -> None:
    start, method = (gathered / "index.md").read_text(), (gathered / "method.md").read_text()
    assert "](operations.md#tuning)" in start and "](demo-curves.png)" in start and "](docs/" not in start
    assert (gathered / "demo-curves.png").is_file()
    assert method.count("<svg") == len(pictures.PICTURES) and "<style>" not in method
    # What stands in a block of code is no link.
    assert "](../README.md" not in (gathered / "quickstart.ipynb").read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gone](gone.md)", "README.md: a link to gone.md, which is not there"),
        ("[up](../other.md)", "which is not there"),
        ("[code](Makefile)", "README.md: a link to Makefile, which is no page of the site"),
    ],
)
def test_a_link_to_nothing_is_told(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(sources.BrokenPageError, match=re.escape(told)):
        sources._page(text, "README.md", sources.pages(), tmp_path)
    assert sources._page(f"```\n{text}\n```\n", "README.md", sources.pages(), tmp_path) == f"```\n{text}\n```\n"


def _fields(section: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def test_every_field_stands_under_configuration() -> None:
    page = reference.configuration()
    anchors = re.findall(r"\{#([\w-]+)\}", page)
    assert anchors == [name.replace(".", "-") for name in _fields_in_order(page)]
    assert set(anchors) == {name.replace(".", "-") for name in _fields(Experiment)}
    rows = dict(re.findall(r"^\| \[`\w+`\]\{#([\w-]+)\}(.*)\|$", page, re.M))
    assert rows["align-alpha"].split(" | ")[1:4] == ["number", "≥ 0, ≤ 100", "`0.01`"]
    assert rows["data-path"].startswith(" ° | text or null | 1 to 4,096 characters | `null`")
    assert "`keep`, `exact`, `first`" in rows["data-duplicates"]
    assert "5 to 9 values" in rows["generator-ranker_weights"]
    assert all(row.count(" | ") == 4 for row in rows.values())


def _fields_in_order(page: str) -> list[str]:
    """As the page's own sections say: each field below the heading of its section."""
    found, section = [], ""
    for line in page.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`").replace("Experiment", "")
        elif field := re.match(r"\| \[`(\w+)`\]", line):
            found.append(f"{section}.{field[1]}".lstrip("."))
    return found


def test_every_command_stands_under_command_line() -> None:
    page, command = reference.command_line(), get_command(app)
    for name in command.commands:  # type: ignore[attr-defined]
        assert f"[`prorec {name}`](#prorec-{name})" in page and f"\n## `prorec {name}`\n" in page
    assert "[`prorec config show`](#prorec-config-show)" in page and "--set SECTION.KEY=VALUE" in page
    assert not re.search(r"^\* .*\.\.\.$", page, re.M), "the list of commands cuts nothing off"


def test_pictures_are_as_they_are_drawn() -> None:
    kept = {path.stem: path.read_text() for path in pictures.FOLDER.glob("*.svg")}
    assert kept == {name: draw() for name, draw in pictures.PICTURES.items()}, "run `python -m docsite.pictures`"


def test_links_of_a_built_site_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<link href="style.css"><a href="b.html#there">x</a><a href="b.html#gone">x</a><a href="c.html">x</a>'
        '<a href="#own" id="own">x</a><a href="https://example.org">x</a><img src="data:image/png;base64,x">'
        '<script src="https://cdn.example/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<p id="there">')
    (tmp_path / "style.css").write_text("@font-face { src: url('https://fonts.example/x.woff') }")
    assert list(links.problems(tmp_path)) == [
        "a.html: loads https://cdn.example/x.js from elsewhere",
        "a.html: a link to b.html#gone, which has no such anchor",
        "a.html: a link to c.html, which is not there",
        "style.css: loads something from elsewhere",
    ]


def test_a_site_takes_the_place_of_another_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "docs" / "html"
    for number in ("1", "2"):
        built = tmp_path / "built"
        built.mkdir()
        (built / "index.html").write_text(number)
        put(built, target)
        assert [path.name for path in target.parent.iterdir()] == ["html"]
        assert (target / "index.html").read_text() == number
    rename = Path.rename
    (tmp_path / "built").mkdir()
    monkeypatch.setattr(Path, "rename", lambda own, to: pytest.fail("stop") if own.name == "new" else rename(own, to))
    with pytest.raises(BaseException, match="stop"):
        put(tmp_path / "built", target)
    assert (target / "index.html").read_text() == "2" and [path.name for path in target.parent.iterdir()] == ["html"]


def test_equations_are_drawn_or_told() -> None:
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    from docsite.equations import drawing

    drawn = drawing(r"L_1 = L_{\mathrm{seq}} + \alpha \, L_{\mathrm{align}}")
    assert drawn.startswith('<svg class="math"') and "currentColor" in drawn and r"\alpha" in drawn
    with pytest.raises(ValueError, match="unknown"):
        drawing(r"\unknown{x}")
