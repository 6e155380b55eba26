"""The notebook runs whole, and what is kept in it is of what stands in it."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import polars as pl
import pytest

from docsite import notebook

OF_A_MACHINE = re.compile(r"/(?:home|root|tmp|work|Users|usr|opt)/|0x[0-9a-f]{8,}|\w+@\w+\.\w+")


def test_the_kept_outputs_are_of_the_sources_and_of_no_machine() -> None:
    kept = notebook.read()
    assert notebook.kept_outputs_fit(kept), "run `python -m docsite.notebook`"
    cells = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        shown = json.dumps([output.get("text") or _texts(output) for output in cell["outputs"]])
        assert not OF_A_MACHINE.search("".join(cell["source"]) + shown)
        assert all(output["output_type"] in {"stream", "execute_result"} for output in cell["outputs"])
    shown = [kind for cell in cells for output in cell["outputs"] for kind in output.get("data", {})]
    assert shown.count("image/png") >= 5 and shown.count("text/html") >= 5


def _texts(output: dict[str, Any]) -> list[Any]:
    return [data for kind, data in output.get("data", {}).items() if kind.startswith("text/")]


@pytest.mark.pipeline
def test_it_runs_whole_and_shows_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, Any] = {}
    shown = []
    with pl.Config():
        for source in notebook.code_cells(notebook.read()):
            tree = ast.parse(source)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "quickstart", "exec"), space)
            if last is not None:
                shown.append(eval(compile(ast.Expression(last.value), "quickstart", "eval"), space))
    tables = [each for each in shown if isinstance(each, pl.DataFrame)]
    pictures = [each for each in shown if hasattr(each, "_repr_png_")]
    assert all(not table.is_empty() for table in tables) and len(pictures) >= 5
    assert all(picture._repr_png_().startswith(b"\x89PNG") for picture in pictures)
    told = capsys.readouterr().out
    assert all(f"{stage}: " in told for stage in ("preprocess", "align", "quantize", "train_generator", "evaluate"))
    # What the text says of the figures.
    domination, reached = space["run"].domination, dict(space["figures"].select("scorer", "ndcg_at_10").iter_rows())
    assert domination["naive_concatenation"]["text_share"] > 0.9 > domination["integrated"]["text_share"]
    assert reached["ranked"] > reached["popularity"] and reached["generative"] > reached["popularity"]
