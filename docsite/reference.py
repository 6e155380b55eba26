"""Pages made from the code: every field of the configuration, every command, the Python API.

Knows what pydantic, typer and docstrings say; knows nothing of where pages stand.
"""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any

import prorec_core
from prorec_core.by_data import of_the_shop
from prorec_core.config import BY_DATA, Experiment
from prorec_core.sections import RUN_ONLY

_RANGES = (
    ("minimum", "≥ {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMaximum", "< {}"),
)
_SIZES = (("minLength", "maxLength", "characters"), ("minItems", "maxItems", "values"))
_UNTOLD = {r"^[^\x00]*$"}
"""A pattern that nobody comes upon."""
_NOT_SHOWN = {
    *("prorec_core.api", "prorec_core.run", "prorec_core.config", "prorec_core.config_data", "prorec_core.serving"),
}
"""The API and the configuration have pages of their own; the last is MLflow's way to a model."""


_OTHERS = "others"
_FLOW = (
    *("data", "text", "metrics", "training", "sequential", "alignment", "quantization", "generation", "evaluation"),
    *("reports", "stages", _OTHERS),
)


def configuration() -> str:
    """A table a section of an experiment: field, type, range, default, meaning."""
    schema = Experiment.model_json_schema()
    lines = [
        "# Configuration",
        "",
        "An experiment is a YAML file that holds what differs from the defaults below, or an `Experiment` in Python. "
        "`prorec run FILE --set SECTION.FIELD=VALUE` changes one value; `prorec config show NAME` prints all of them; "
        "`prorec config schema` prints this page as JSON schema. Unknown fields are refused.",
        "",
        "A field marked ° changes where or how fast a stage runs, not what it leaves.",
        "",
        "Where the default is `auto`, the number follows from [how large the data are](fitting.md); the built-in shop "
        "has its own, which stands beside.",
        "",
    ]
    for path, section in _sections(schema, schema, ""):
        lines += [f"## `{path}`" if path else "## Experiment", "", section.get("description", "").split("\n\n")[0], ""]
        lines += ["| field | type | range | default | meaning |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {_field(path, name, found)} | {_type(_with_parts(schema, found))} | {_range(found)} "
            f"| {_default(found)}{_of_the_shop(path, name)} | {_cell(found.get('description', ''))} |"
            for name, found in section["properties"].items()
            if "$ref" not in found
        ]
        lines.append("")
    return "\n".join(lines)


def _sections(
    schema: Mapping[str, Any], section: Mapping[str, Any], path: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A section and all below it, each with its dotted name."""
    yield path, section
    for name, found in section["properties"].items():
        if "$ref" in found:
            below = schema["$defs"][found["$ref"].rpartition("/")[2]]
            yield from _sections(schema, below, f"{path}.{name}".lstrip("."))


def _field(path: str, name: str, found: Mapping[str, Any]) -> str:
    anchor = f"{path}.{name}".lstrip(".").replace(".", "-")
    return f"[`{name}`]{{#{anchor}}}" + " °" * (RUN_ONLY.items() <= found.items())


def _kinds(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{**found, **kind} for kind in found["anyOf"]] if "anyOf" in found else [found]


def _type(found: Mapping[str, Any]) -> str:
    return " or ".join(_one_type(kind) for kind in _kinds(found))


def _with_parts(schema: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """A field whose values are sections of their own, with the names of their fields."""
    if found.get("type") != "array" or "$ref" not in found["items"]:
        return found
    return {**found, "items": schema["$defs"][found["items"]["$ref"].rpartition("/")[2]]}


def _one_type(found: Mapping[str, Any]) -> str:
    if "properties" in found:
        return f"section of {', '.join(f'`{name}`' for name in found['properties'])}"
    if "enum" in found:
        return ", ".join(f"`{value}`" for value in found["enum"])
    if "const" in found:
        return f"`{found['const']}`"
    if found["type"] == "array":
        items = _type(found["items"])
        return f"list: a {items} each" if "properties" in found["items"] else f"list of {items}s"
    return {"string": "text", "boolean": "true, false"}.get(found["type"], str(found["type"]))


def _range(found: Mapping[str, Any]) -> str:
    return "; ".join(dict.fromkeys(part for kind in _kinds(found) for part in _ranges(kind)))


def _ranges(found: Mapping[str, Any]) -> Iterator[str]:
    if bounds := [words.format(f"{found[name]:,}") for name, words in _RANGES if name in found]:
        yield ", ".join(bounds)
    for least, most, unit in _SIZES:
        if least in found or most in found:
            yield f"{_between(found.get(least), found.get(most))} {unit}"
    if "pattern" in found and found["pattern"] not in _UNTOLD:
        yield "`" + found["pattern"].replace("|", r"\|") + "`"
    if found.get("type") == "array":
        yield from (f"each {part}" for part in _ranges(found["items"]))


def _between(least: int | None, most: int | None) -> str:
    if least is None or most is None:
        return f"up to {most:,}" if least is None else f"{least:,} or more"
    return f"exactly {least:,}" if least == most else f"{least:,} to {most:,}"


def _default(found: Mapping[str, Any]) -> str:
    return f"`{json.dumps(found['default'], ensure_ascii=False)}`" if "default" in found else "none"


def _of_the_shop(path: str, name: str) -> str:
    """The built-in shop's number of a field that may follow the data."""
    return f"; {of_the_shop(Experiment, path, name)}" if name in BY_DATA.get(path, ()) else ""


def _cell(text: str) -> str:
    return re.sub(r"([|*<\[])", r"\\\1", " ".join(text.split()))


def command_line() -> str:
    """Every command with its arguments and options, as `--help` shows them."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from prorec.flows.cli import app

    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="prorec"), name="prorec")
    text = text.replace("# `prorec`\n", "# Command line\n", 1)
    # What the list of commands cuts off stands in full below: each leads there.
    listed = re.compile(r"^\* `([\w-]+)`: .*$", re.M)
    parts = re.split(r"^(?=#)", text, flags=re.M)
    for place, part in enumerate(parts):
        head, found, commands = part.partition("**Commands**:")
        if found:
            whole = "prorec" if place <= 1 else re.findall(r"`([^`]+)`", part)[0]
            parts[place] = head + found + listed.sub(lambda each, w=whole: _command(w, each[1]), commands)
    return "".join(parts)


def _command(whole: str, name: str) -> str:
    anchor = f"{whole} {name}".replace(" ", "-")
    return f"* [`{whole} {name}`](#{anchor})"


def python_api() -> str:
    """What `from prorec_core import …` gives."""
    lines = [
        "# Python API",
        "",
        "What `from prorec_core import …` gives is stable: a change that breaks it stands in the "
        "[changelog](changelog.md). To import `prorec_core` costs nothing; what trains is loaded with the first name "
        "that needs it. The [quickstart](quickstart.ipynb) shows it at work; an `Experiment` is told of under "
        "[configuration](configuration.md).",
        "",
        "```python",
        "from prorec_core import Choice, Experiment, Rule, train",
        "",
        'shop = Experiment(name="shop", data={"source": "tables", "path": "/data/shop"})',
        'run = train(shop, "runs/shop")        # goes on from here when it was stopped',
        'run.recommend(["sku-17", "sku-4"], k=10)',
        'run.recommend(["sku-17"], rule=Rule(exclude=Choice(items=["sku-5"])))',
        "run.evaluate()",
        'run.export("shop-model")              # plain files, which Recommender.load reads',
        "```",
        "",
        "A mistake that a user can put right is a `UserError`, which says what is wrong, where, and what to do; of the "
        "values that `Experiment(…)` is made with it is pydantic's `ValidationError`. What varies an experiment is "
        '`shop.model_copy(update={"seed": 1})`, with whole sections as `shop.align.model_copy(…)` or as plain data; '
        "`train` looks at it once more.",
        "",
    ]
    order = ["load_data", "train", "open_run", "Run", "Experiment", "Dataset", "Recommender", "Recommendation", "Rule"]
    order += [name for name in prorec_core.__all__ if name not in order]
    for name in order:
        kind = "autoclass" if isinstance(getattr(prorec_core, name), type) else "autofunction"
        members = "" if name in {"Experiment"} or kind == "autofunction" else "   :members:\n"
        lines += [f"## `{name}`", "", f"```{{eval-rst}}\n.. {kind}:: prorec_core.{name}\n{members}```", ""]
    return "\n".join(lines)


def modules() -> dict[str, str]:
    """A page a package of `prorec_core` with what each of its modules says of itself, and one that leads to them."""
    by_page: dict[str, list[str]] = {}
    for found in pkgutil.walk_packages(prorec_core.__path__, f"{prorec_core.__name__}."):
        parts = found.name.split(".")[1:]
        if found.name not in _NOT_SHOWN and not (found.ispkg and len(parts) == 1):
            by_page.setdefault(parts[0] if len(parts) > 1 else _OTHERS, []).append(found.name)
    pages = {
        f"modules/{page}.md": "\n".join(
            [
                f"# `prorec_core.{page}`" if page != _OTHERS else "# Modules below all packages",
                "",
                *(_module(name) for name in names),
            ]
        )
        for page, names in by_page.items()
    }
    lines = [
        "# Modules",
        "",
        "The method as plain functions and modules, in the order in which data flow through them. What stands here may "
        "move between versions; what is stable is the [Python API](../api.md).",
        "",
        "```{toctree}",
        *sorted(by_page, key=lambda page: (_FLOW.index(page) if page in _FLOW else len(_FLOW), page)),
        "```",
        "",
    ]
    return pages | {"modules/index.md": "\n".join(lines)}


def _module(name: str) -> str:
    public = [each for each, place in prorec_core._PLACES.items() if place == name]
    less = f"   :exclude-members: {', '.join(public)}\n" if public else ""
    return f"## `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n{less}```\n"
