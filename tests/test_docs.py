"""What README and docs promise of names, and where their links lead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prorec.flows.configuration.experiments import BUILT_IN, preset_files
from prorec_core.metrics.scorers import GIVEN, SCORERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "artifacts" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def test_every_scorer_is_told_of() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", README.split("| scorer |")[1].split("\n\n")[0], re.M)) == (
        {name for name, row in SCORERS.items() if not row.heuristic}
        - {"collaborative", "item_to_item", "two_stream", GIVEN}
    ), "a run measures all but those of pipelines of their own"


def test_the_presets_are_named() -> None:
    (named,) = re.findall(r"shows a preset \(([^)]*)\)", " ".join(README.split()))
    assert set(re.findall(r"`([\w-]+)`", named)) == {BUILT_IN, *preset_files()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, anchor
