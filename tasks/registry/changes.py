"""Files that say which items come or go, and which of them a version was made with.

Knows digests, times of files, lineages and tags; knows nothing of items or models. A file is known by its bytes and by
what it is for. Written again since, it says the same again, after all that was said meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prorec_core.artifacts import sha256_file
from prorec_core.errors import UserError

LOOKED_AT = "prorec.looked_at."
"""On a version, with the kind of a change and the digest of its file after it: when that was written, and its name. All
that it says was so already. Of earlier versions the digest alone stands there, with the name."""


@dataclass(frozen=True)
class Change:
    """A file that says which items come or go; `sha256` of its bytes, `written` in seconds since 1970."""

    kind: Literal["add", "remove"]
    file: Path
    sha256: str
    written: float = 0.0

    @classmethod
    def of(cls, kind: Literal["add", "remove"], file: Path) -> Change:
        """The change that a file is now.

        Raises:
            UserError: there is no such file, or none whose name can be kept with the version.
        """
        from prorec_core.data.formats import is_file
        from prorec_core.data.tables import reading

        if not is_file(file):
            raise UserError("there is no such file", place=str(file), cure="Check the name")
        try:
            file.name.encode()
        except UnicodeEncodeError as error:
            raise UserError("the file's name is not in UTF-8", place=str(file), cure="Rename it") from error
        with reading(str(file)):
            # Before its bytes: one that is written meanwhile is looked at once more.
            written = file.stat().st_mtime
            return cls(kind, file, sha256_file(file), written)


class Known:
    """The files that are in, or were looked at for nothing: an earlier one must not undo a later one."""

    def __init__(self, lineage: Iterable[Mapping[str, Any]], tags: Mapping[str, str]) -> None:
        """
        Args:
            lineage: the steps by which the version was made.
            tags: the version's.
        """
        self._written: dict[tuple[str, str], float] = {}
        for step in lineage:
            # Earlier versions did not note when: whatever has the bytes is in.
            self._note(step["did"], step["sha256"], step.get("written", math.inf))
        for name, value in tags.items():
            kind, _, sha256 = name.removeprefix(LOOKED_AT).rpartition(".")
            if name.startswith(LOOKED_AT) and kind:
                self._note(kind, sha256, float(value.partition(" ")[0]))
            elif name.startswith(LOOKED_AT):
                for each in ("add", "remove"):
                    self._note(each, sha256, math.inf)

    def has(self, change: Change) -> bool:
        """Whether a file is known and was not written since."""
        return change.written <= self._written.get((change.kind, change.sha256), -math.inf)

    def note(self, change: Change) -> None:
        """Know a file from now on."""
        self._note(change.kind, change.sha256, change.written)

    def _note(self, kind: str, sha256: str, written: float) -> None:
        self._written[kind, sha256] = max(written, self._written.get((kind, sha256), -math.inf))


def looked_at(change: Change) -> dict[str, str]:
    """The tag that says that a file was looked at for nothing."""
    return {f"{LOOKED_AT}{change.kind}.{change.sha256}": f"{change.written!r} {change.file.name}"}
