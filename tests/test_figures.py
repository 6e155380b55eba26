"""Figures in the docs are those that were measured, where what was measured is kept beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
_KEPT = re.compile(r"\]\(results/([\w-]+\.json)\)")
_FIGURE = re.compile(r"(?<![\d.])([+−]?)(\.\d{2,6})(?![\d%])")


def tables() -> Iterator[tuple[str, str, list[str]]]:
    """The page, the file and the rows of each table before which a kept file is linked."""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for found in _KEPT.finditer(text):
            table = re.search(r"^\|.*?(?=\n\n|\Z)", text[found.end() :], re.M | re.S)
            assert table, f"{page.name}: no table after {found[1]}"
            yield page.name, found[1], table[0].splitlines()[2:]


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, float):
        yield value


def entry(kept: Any, row: str) -> Any:
    """What is kept of the variant that a row names first; where it names none, all that the file holds."""
    name = re.match(r"\| \*{0,2}`([\w-]+)`", row)
    return kept["table"]["variants"][name[1]] if name else kept


def untold(row: str, kept: Any) -> list[str]:
    """The figures of a row that nothing kept has, as far as they are written out."""
    known = list(numbers(entry(kept, row)))
    found = []
    for sign, figure in _FIGURE.findall(row):
        value = float(figure) * (-1 if sign == "−" else 1)
        near = 0.500001 * 10.0 ** (1 - len(figure))
        if not any(abs((each if sign else abs(each)) - value) <= near for each in known):
            found.append(sign + figure)
    return found


@pytest.mark.parametrize(("page", "file", "rows"), tables(), ids=lambda each: each if isinstance(each, str) else "")
def test_a_table_tells_what_was_measured(page: str, file: str, rows: list[str]) -> None:
    kept = json.loads((DOCS / "results" / file).read_bytes())
    assert {row: found for row in rows if (found := untold(row, kept))} == {}, page


def test_another_figure_is_seen() -> None:
    kept = {"table": {"variants": {"a": {"test": {"mean": 0.03897}, "low": -0.00115}, "b": {"test": 0.0271}}}}
    assert untold("| **`a`** | .0390 / **.039** | −.0012 … −.0011 | 2.3% | .50% |", kept) == []
    assert untold("| `a` | .0389 | +.0012 | .0271 |", kept) == [".0389", "+.0012", ".0271"]


def test_every_kept_result_is_told_of() -> None:
    assert {file for _, file, _ in tables()} == {path.name for path in (DOCS / "results").iterdir()}
