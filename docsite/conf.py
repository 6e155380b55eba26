"""How Sphinx builds the site. Knows Sphinx's names."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_HERE = Path(__file__).resolve().parent

project = "PRORec"
author = "the PRORec authors"
release = version = importlib.metadata.version("prorec")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docsite.equations"]

# Pages are read as GitHub reads them: the same anchors, equations between dollars.
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = "off"

# In docstrings a name stands between single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"PRORec {release}"
html_math_renderer = "drawn"
html_static_path = [str(_HERE / "static")]
html_css_files = ["site.css"]
templates_path = [str(_HERE / "templates")]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

_COLON = "\ue000"


def setup(app: Sphinx) -> None:
    """Keep napoleon from taking what stands before a colon in the first line of a property for its type."""

    def hide(_app: Sphinx, what: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
        if what in {"property", "attribute", "data"} and lines:
            lines[0] = lines[0].replace(":", _COLON)

    def show(_app: Sphinx, _what: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
        lines[:] = [line.replace(_COLON, ":") for line in lines]

    app.connect("autodoc-process-docstring", hide, priority=400)
    app.connect("autodoc-process-docstring", show, priority=600)
