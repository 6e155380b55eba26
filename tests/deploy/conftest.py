"""docker-compose.yml as compose reads it, and the Dockerfile by its instructions. Knows no engine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:[-?])([^}]*))?\})")
_COMMENT = re.compile(r"^\s*#.*\n", re.MULTILINE)


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined, with the stage that it belongs to."""

    stage: str
    word: str
    rest: str


@dataclass(frozen=True)
class Files:
    """What the containers are made of.

    Attributes:
        text: `docker-compose.yml` without the lines that are comments.
        services: its services by name, variables as written.
        example: `.env.example`, by name.
        dockerfile: the instructions of `Dockerfile`.
    """

    text: str
    services: dict[str, dict[str, Any]]
    example: dict[str, str]
    dockerfile: list[Instruction]

    def variables(self) -> dict[str, set[tuple[str, str]]]:
        """Every `${NAME…}` of the compose file: the operators (`:-`, `:?`, none) with the text after them, by name."""
        found: dict[str, set[tuple[str, str]]] = {}
        for name, operator, rest in _VARIABLE.findall(self.text):
            if name:
                found.setdefault(name, set()).add((operator, rest))
        return found

    def once(self) -> set[str]:
        """The services that end when their work is done: those whose end others wait for."""
        return {
            other
            for service in self.services.values()
            for other, how in service.get("depends_on", {}).items()
            if how["condition"] == "service_completed_successfully"
        }

    def image_environment(self) -> dict[str, str]:
        """What this project's image sets in each of its containers."""
        lines = [each.rest for each in self.dockerfile if (each.stage, each.word) == ("prorec", "ENV")]
        return dict(pair.split("=", 1) for line in lines for pair in shlex.split(line))

    def fill(self, value: Any, variables: Mapping[str, str]) -> Any:
        """`value` with variables replaced as compose does.

        Raises:
            KeyError: one that must be set is not.
        """
        if isinstance(value, dict):
            return {key: self.fill(each, variables) for key, each in value.items()}
        if isinstance(value, list):
            return [self.fill(each, variables) for each in value]
        return _VARIABLE.sub(lambda match: _filled(match, variables), value) if isinstance(value, str) else value


def _filled(match: re.Match[str], variables: Mapping[str, str]) -> str:
    name, operator, rest = match.groups()
    if name is None:
        return "$"
    value = variables.get(name, "")
    if operator == ":?" and not value:
        raise KeyError(f"{name}: {rest}")
    return value or (rest if operator == ":-" else "")


def read_dockerfile(text: str) -> list[Instruction]:
    """The instructions, in order."""
    found: list[Instruction] = []
    stage = ""
    for line in _COMMENT.sub("", text).replace("\\\n", " ").splitlines():
        if line.strip():
            word, rest = line.split(maxsplit=1)
            stage = rest.rpartition(" AS ")[2] if word == "FROM" else stage
            found.append(Instruction(stage, word, rest))
    return found


@pytest.fixture(scope="session")
def files() -> Files:
    """What the tests of this folder are about."""
    compose, example, dockerfile = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("docker-compose.yml", ".env.example", "Dockerfile")
    )
    lines = [line.split("=", 1) for line in _COMMENT.sub("", example).splitlines() if line.strip()]
    return Files(
        _COMMENT.sub("", compose),
        yaml.safe_load(compose)["services"],
        dict(lines),
        read_dockerfile(dockerfile),
    )
