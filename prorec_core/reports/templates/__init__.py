"""The templates of pages that need nothing else. Knows Jinja; knows nothing of what pages say."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

_HERE = Path(__file__).parent


@cache
def template(name: str) -> Template:
    """A template of this package, or of that of comparisons, by its file name; texts that it is given are escaped."""
    environment = Environment(
        loader=FileSystemLoader([_HERE, _HERE.parent / "comparison"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
