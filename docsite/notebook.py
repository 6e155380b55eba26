"""`python -m docsite.notebook`: run docs/quickstart.ipynb whole, and keep what it shows.

Knows notebooks and their kernels; knows nothing of what the cells do.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from typing import Any

from docsite.sources import DOCS
from prorec_core.artifacts import write_bytes

NOTEBOOK = DOCS / "quickstart.ipynb"
_KEPT_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_SOURCES = "outputs_of"
"""The name of the hash that tells which sources the kept outputs are of."""


def read() -> dict[str, Any]:
    """The notebook as it is kept."""
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return found


def code_cells(notebook: Mapping[str, Any]) -> list[str]:
    """The sources of its cells of code."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def sources_hash(notebook: Mapping[str, Any]) -> str:
    """Hash (hex) of the sources of its cells of code."""
    return hashlib.sha256("\0".join(code_cells(notebook)).encode()).hexdigest()


def kept_outputs_fit(notebook: Mapping[str, Any]) -> bool:
    """Whether the outputs in a notebook are of the sources in it."""
    return bool(notebook["metadata"].get(_SOURCES) == sources_hash(notebook))


def main() -> None:
    """Run the cells in a kernel of their own and write the notebook back, whole or not at all."""
    from nbclient import NotebookClient

    nbformat: Any = importlib.import_module("nbformat")  # Its functions are without types.
    notebook = nbformat.from_dict(read())
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # The shop is too small for more.
    NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if len(data := output.get("data", {})) > 1:
                    # Who cannot show the other form can run the cell.
                    data.pop("text/plain", None)
    notebook.metadata = {**_KEPT_METADATA, _SOURCES: sources_hash(notebook)}
    write_bytes(NOTEBOOK, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
