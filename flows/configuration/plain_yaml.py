"""YAML as a configuration needs it: sections, lists and plain values, within bounds that no sensible file meets.

Knows YAML's events and their bounds; knows nothing of what the values mean. Tags are refused, so that no text becomes
an object; keys are texts as they are written; numbers, true, false and null are read as in YAML 1.2, and all else,
dates and times too, stays text. What refers to an earlier part (`*name`) is read, but counts with all that is in it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml import events

from prorec_core.errors import UserError
from prorec_core.visible import shortened
from prorec_core.yaml_text import plain

MOST_BYTES = 2**18
MOST_VALUES = 20_000
DEEPEST = 20
LONGEST_KEY = 200

_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class PlainYAMLError(Exception):
    """The text cannot be taken; the message says why, `line` where, from 1 (0: nowhere in particular)."""

    def __init__(self, problem: str, line: int = 0, cure: str = "") -> None:
        super().__init__(problem)
        self.problem, self.line, self.cure = problem, line, cure


def read_file(path: Path) -> Any:
    """What a YAML file holds; None for an empty one.

    Raises:
        UserError: it cannot be read, is too large or no UTF-8, or holds what `parse` refuses; names file and line.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"the file cannot be read ({error.strerror or error})", place=str(path)) from error
    if len(content) > MOST_BYTES:
        raise UserError(
            f"the file has more than {MOST_BYTES:,} bytes", place=str(path), cure="A configuration has a few thousand"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"the file cannot be read: it is no UTF-8 text (byte {error.start + 1})",
            place=f"{path}, line {line}",
            cure="Save it as UTF-8",
        ) from error
    try:
        return parse(text)
    except PlainYAMLError as error:
        place = f"{path}, line {error.line}" if error.line else str(path)
        raise UserError(f"this is no valid YAML: {error.problem}", place=place, cure=error.cure) from error


def parse(text: str) -> Any:
    """The value of a YAML text, made of dicts with texts as keys, lists, texts, numbers, truth values and None.

    Raises:
        PlainYAMLError: it is no YAML, or goes beyond what a configuration needs.
    """
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise PlainYAMLError(f"the character U+{ord(found[0]):04X} cannot stand in it", line, "Remove it")
    try:
        return _Builder().build(yaml.parse(text, yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = shortened(error.problem or error.context or "", 200)
        cure = "Indent with blanks, not with tabs" if r"'\t'" in problem else ""
        raise PlainYAMLError(problem, mark.line + 1 if mark else 0, cure) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML's scanner lets a few of Python's own errors through, for instance of "\UFFFFFFFF".
        raise PlainYAMLError(shortened(" ".join(str(error).split()), 200)) from error


@dataclass
class _Open:
    """A section or list that is being read."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    before: int
    key: str | None = None


class _Builder:
    """Makes values of events, one after the other, and stops as soon as there are too many or they lie too deep."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._named: dict[str, tuple[Any, int]] = {}
        self._values = 0
        self._documents = 0
        self._result: Any = None

    def build(self, found: Iterator[events.Event]) -> Any:
        """The value that the events tell."""
        for event in found:
            self._take(event, event.start_mark.line + 1 if event.start_mark else 0)
        return self._result

    def _take(self, event: events.Event, line: int) -> None:
        match event:
            case events.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise PlainYAMLError("a second document begins", line, "Give each a file of its own")
            case events.AliasEvent():
                self._alias(str(event.anchor), line)
            case events.ScalarEvent():
                self._no_tag(event, line)
                self._scalar(event, line)
            case events.MappingStartEvent() | events.SequenceStartEvent():
                self._no_tag(event, line)
                self._begin(event, line)
            case events.MappingEndEvent() | events.SequenceEndEvent():
                ended = self._open.pop()
                self._keep(ended.anchor, ended.value, self._values - ended.before)
                self._put(ended.value, line)
            case _:
                pass

    def _no_tag(self, event: Any, line: int) -> None:
        if event.tag is not None:
            tag = shortened(str(event.tag).replace("tag:yaml.org,2002:", "!!"), 60)
            raise PlainYAMLError(f"the tag '{tag}' is not taken", line, "Write the value alone; quote it if it is text")

    def _begin(self, event: Any, line: int) -> None:
        self._key_expected(line)
        self._count(1, line)
        if len(self._open) >= DEEPEST:
            raise PlainYAMLError(f"more than {DEEPEST} levels lie within one another", line)
        value: dict[str, Any] | list[Any] = {} if isinstance(event, events.MappingStartEvent) else []
        self._open.append(_Open(value, event.anchor, self._values - 1))

    def _scalar(self, event: events.ScalarEvent, line: int) -> None:
        self._count(1, line)
        if self._awaits_key():
            self._key(str(event.value), line)
            self._keep(event.anchor, event.value, 1)
            return
        value = plain(event.value) if event.implicit[0] else event.value
        self._keep(event.anchor, value, 1)
        self._put(value, line)

    def _alias(self, name: str, line: int) -> None:
        if name not in self._named:
            inside = any(each.anchor == name for each in self._open)
            raise PlainYAMLError(f"'*{name}' stands within itself" if inside else f"'*{name}' refers to nothing", line)
        value, size = self._named[name]
        self._count(size, line)
        if self._awaits_key():
            if not isinstance(value, str):
                raise PlainYAMLError("a key must be a text", line)
            self._key(value, line)
            return
        # What is changed in the one place afterwards stays as it is in the other.
        self._put(copy.deepcopy(value), line)

    def _keep(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor is not None:
            self._named[anchor] = (value, size)

    def _count(self, more: int, line: int) -> None:
        self._values += more
        if self._values > MOST_VALUES:
            raise PlainYAMLError(f"it holds more than {MOST_VALUES:,} values", line)

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _key_expected(self, line: int) -> None:
        if self._awaits_key():
            raise PlainYAMLError("a key must be a text, not a list or a section", line)

    def _key(self, key: str, line: int) -> None:
        around = self._open[-1]
        if not key.strip():
            raise PlainYAMLError("a key is empty", line)
        if len(key) > LONGEST_KEY:
            raise PlainYAMLError(f"a key has more than {LONGEST_KEY} characters", line)
        if key in around.value:
            raise PlainYAMLError(f"the key '{key}' stands here a second time", line)
        around.key = key

    def _put(self, value: Any, line: int) -> None:
        if not self._open:
            self._result = value
            return
        around = self._open[-1]
        if isinstance(around.value, list):
            around.value.append(value)
        else:
            assert around.key is not None, line
            around.value[around.key], around.key = value, None
