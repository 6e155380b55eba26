"""Named lists of item ids, as what is in stock: kept in the folder of artifacts, one file a list.

Knows names, ids and files; knows nothing of models: a list is bound to ids, and outlives any of them. A file appears
whole or not at all, and every process that has the folder sees the same lists.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from prorec.tasks.local import paths
from prorec_core.artifacts import write_bytes
from prorec_core.errors import UserError, did_you_mean
from prorec_core.generation.rules import ItemList

MOST_LISTS = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptList:
    """A list as it was kept; `updated` in UTC."""

    content: ItemList
    updated: datetime


class TooManyListsError(UserError):
    """There are as many lists as there may be."""


class NoListError(UserError):
    """There is no list of this name."""


class ListStore:
    """The lists of one folder. May be used by several threads; what another process changes is seen."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or paths.artifacts() / "lists"
        self._read: dict[str, tuple[tuple[int, int, int], KeptList]] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """All lists by name, in their order."""
        try:
            found = [path.stem for path in self.folder.iterdir() if path.suffix == ".json"]
        except FileNotFoundError:
            return []
        return sorted(name for name in found if _NAME.fullmatch(name))

    def get(self, name: str) -> KeptList:
        """A list.

        Raises:
            NoListError: there is none of the name.
            UserError: its file is damaged.
        """
        path = self._path(name)
        try:
            with path.open("rb") as file:
                # Of the very file that is read, whatever takes its place meanwhile.
                found = os.fstat(file.fileno())
                with self._lock:
                    known = self._read.get(name)
                if known is not None and known[0] == _state(found):
                    return known[1]
                record = orjson.loads(file.read())
            if record["version"] != _VERSION:
                raise UserError(
                    "a newer version of prorec wrote this list",
                    place=str(path),
                    cure="Use that version, or a later one",
                )
            if not (isinstance(record["items"], list) and all(isinstance(item, str) for item in record["items"])):
                raise ValueError("items are texts")
            content = ItemList.of(name, record["items"])
        except FileNotFoundError:
            raise self._none(name) from None
        except OSError as error:
            problem = f"this list cannot be read ({error.strerror})"
            raise UserError(problem, place=str(path), cure="Have its owner give you the right to it") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("this list is damaged", place=str(path), cure="Put it again") from error
        return self._keep(content, found)

    def content(self, name: str) -> ItemList:
        """The ids of a list; raises as `get`."""
        return self.get(name).content

    def put(self, name: str, items: Iterable[str]) -> KeptList:
        """Keep a list in place of the one that has the name, if any.

        Raises:
            UserError: no list can have the name.
            TooManyListsError: see there.
        """
        path, content = self._path(name), ItemList.of(name, items)
        with paths.lock("lists"):
            names = self.names()
            if name not in names and len(names) >= MOST_LISTS:
                raise TooManyListsError(f"there are {MOST_LISTS} lists already", place=name, cure="Delete one first")
            write_bytes(path, orjson.dumps({"version": _VERSION, "items": content.items}))
            # Of this content, whoever puts or deletes the list next.
            return self._keep(content, path.stat())

    def delete(self, name: str) -> None:
        """Forget a list.

        Raises:
            NoListError: there is none of the name.
        """
        path = self._path(name)
        with paths.lock("lists"):
            try:
                path.unlink()
            except FileNotFoundError:
                raise self._none(name) from None
        with self._lock:
            self._read.pop(name, None)

    def look_through(self) -> tuple[list[KeptList], list[str]]:
        """All lists that can be read, and why others cannot, a line each."""
        found, problems = [], []
        for name in self.names():
            try:
                found.append(self.get(name))
            except NoListError:
                # Deleted since.
                continue
            except UserError as error:
                problems.append(str(error))
        return found, problems

    def all(self) -> list[KeptList]:
        """All lists that can be read; the log says which cannot."""
        found, problems = self.look_through()
        for problem in problems:
            _log.warning("%s", problem)
        return found

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UserError(
                "no list can have this name", place=name, cure="Use up to 64 of a-z, 0-9, - and _, no sign first"
            )
        return self.folder / f"{name}.json"

    def _keep(self, content: ItemList, found: os.stat_result) -> KeptList:
        kept = KeptList(content, datetime.fromtimestamp(found.st_mtime, UTC))
        with self._lock:
            self._read[content.name] = _state(found), kept
        return kept

    def _none(self, name: str) -> NoListError:
        names = self.names()
        return NoListError(
            f"there is no list '{name}'", cure=did_you_mean(name, names) if names else "There are none yet"
        )


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_ino, found.st_size
