"""Where raw tables come from: the demo shop, generic tables, RecBole's atomic files.

Knows file names and formats. Knows nothing of what columns mean or of what is kept of their rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from prorec_core.artifacts import sha256_json
from prorec_core.config_data import DataConfig, DemoShop
from prorec_core.data.demo import DemoData, make_demo_shop
from prorec_core.data.files import Files, find_files, folder_of
from prorec_core.data.formats import ATOMIC, TABLES, TextRules
from prorec_core.data.tables import RawTable, reading
from prorec_core.errors import UserError
from prorec_core.registry import SOURCES


class Source(Protocol):
    """One place that data come from."""

    def interactions(self) -> RawTable:
        """Who took which item when."""
        ...

    def items(self) -> RawTable:
        """The items and their texts."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the source knows about itself, for the profile."""
        ...

    def digest(self) -> str:
        """Hex sha256 that changes whenever the data could."""
        ...


def open_source(config: DataConfig) -> Source:
    """The source that the configuration names; its files are found, not yet read.

    Raises:
        UserError: no path, no such folder or file, or more than one file that could be meant.
    """
    found: Source = SOURCES.load(config.source)(config)
    return found


def demo_shop(config: DataConfig) -> Source:
    """The generated shop.

    Raises:
        UserError: files are named, which are other data.
    """
    for name in ("path", "interactions_file", "items_file"):
        if getattr(config, name) is not None:
            raise UserError(
                "the source 'demo', the built-in shop, reads no files",
                place=f"data.{name}",
                cure=f"Set data.source to what is there, as tables, or leave out data.{name}",
            )
    return DemoSource(config.demo)


def two_files(config: DataConfig) -> Source:
    """A file of interactions and one of items, of the formats that the source's name stands for; as `open_source`."""
    if config.path is None:
        raise UserError(
            f"the source '{config.source}' needs a folder", place="data.path", cure="Set data.path to the folder"
        )
    folder = folder_of(config.path)
    names, suffixes, other = _KINDS[config.source]
    with reading(str(folder)):
        found = [
            find_files(folder, given, setting, stem, suffixes=suffixes, other=other)
            for given, setting, stem in (
                (config.interactions_file, "interactions_file", names[0]),
                (config.items_file, "items_file", names[1]),
            )
        ]
    return FileSource(folder, found[0], found[1], TextRules(config.quotes, config.multiline))


@dataclass(frozen=True)
class DemoSource:
    """The generated shop."""

    config: DemoShop

    def interactions(self) -> RawTable:
        return RawTable.of_frame(self._shop.interactions, "the demo shop's interactions")

    def items(self) -> RawTable:
        return RawTable.of_frame(self._shop.items, "the demo shop's items")

    def facts(self) -> dict[str, Any]:
        return {"demo": self._shop.facts}

    def digest(self) -> str:
        return sha256_json(self.config.model_dump())

    @cached_property
    def _shop(self) -> DemoData:
        return make_demo_shop(self.config)


@dataclass(frozen=True)
class FileSource:
    """Two files or patterns in a folder, each read by the reader that its suffix names."""

    folder: Path
    interactions_files: Files
    items_files: Files
    rules: TextRules

    def interactions(self) -> RawTable:
        return self.interactions_files.open(self.folder, self.rules)

    def items(self) -> RawTable:
        return self.items_files.open(self.folder, self.rules)

    def facts(self) -> dict[str, Any]:
        """Names alone: the same rows in more files are the same data."""
        return {"files": [files.name(self.folder) for files in (self.interactions_files, self.items_files)]}

    def digest(self) -> str:
        return sha256_json([files.digest() for files in (self.interactions_files, self.items_files)])


_KINDS: dict[str, tuple[tuple[str, str], tuple[str, ...], str]] = {
    "tables": (("interactions", "items"), tuple(TABLES), "recbole"),
    "recbole": ((".inter", ".item"), tuple(ATOMIC), "tables"),
}
