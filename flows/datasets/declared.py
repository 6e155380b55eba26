"""What is declared of public data sets: where they are, under which licence, and how they are read.

Knows the YAML files of `catalogue/`, which are package data. Knows nothing of downloads.

A file declares families. What a family says holds for each of its sets; `names` with `{slug}` and `each` makes a set
of every category, whose name the publisher's file names hold as `{category}`; `sets` says what differs in one of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path, PurePath
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from prorec_core.config_data import DataConfig
from prorec_core.errors import UserError, did_you_mean

_GIGABYTE = 1 << 30


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _plain_name(name: str) -> str:
    if PurePath(name).name != name or name.startswith("."):
        raise ValueError("this is no plain name of a file")
    return name


def _web_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
        raise ValueError("this is no address that files are fetched from")
    return address


class Licence(_Strict):
    """Under what a data set may be used.

    Attributes:
        key: under which an acceptance is kept.
        name: of the licence, or that none is stated.
        url: where it stands.
        forbids: what it does not allow, in words.
        accept: whether it must be accepted before the set is fetched.
    """

    key: str
    name: str
    url: str
    forbids: str = ""
    accept: bool = False


class File(_Strict):
    """One file as the publisher has it.

    Attributes:
        name: what it is kept as.
        addresses: where it is, the first one first; none where one has to sign in.
        sha256, md5: what the publisher says of it, where he says something.
        unpack: whether it is an archive of several files.
        most: bytes that it may have, and what is in it.
    """

    name: Annotated[str, AfterValidator(_plain_name)]
    addresses: tuple[Annotated[str, AfterValidator(_web_address)], ...] = ()
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    unpack: bool = False
    most: int = Field(100 * _GIGABYTE, gt=0)

    def checksum(self) -> tuple[str, str] | None:
        """The strongest checksum that the publisher gives: algorithm and hex digest."""
        return ("sha256", self.sha256) if self.sha256 else ("md5", self.md5) if self.md5 else None

    def unpacked_in(self, folder: Path) -> Path:
        """Where an archive's files are, in the folder of its data set."""
        return folder / PurePath(self.name).stem


class DataSet(_Strict):
    """A public data set.

    Attributes:
        name: what it is asked for by.
        title: what it is.
        family: the title of those that it belongs to.
        page: the publisher's page.
        licence: under what it may be used.
        citation: what those who use it are asked to cite.
        files: what is fetched.
        by_hand: where to sign in and what to take there, where it cannot be fetched.
        data: the section `data` of an experiment, without its path.
        like: the preset that the rest of the experiment is taken from.
        note: what else a user should know.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    title: str
    family: str
    page: str
    licence: Licence
    citation: str
    files: tuple[File, ...]
    by_hand: str = ""
    data: dict[str, Any]
    like: str | None = None
    note: str = ""

    @model_validator(mode="after")
    def _can_be_had_and_read(self) -> DataSet:
        DataConfig.model_validate(self.data)
        if any(not file.addresses for file in self.files) != bool(self.by_hand):
            raise ValueError("a file has addresses, or it is said how it is had by hand")
        return self

    @property
    def digest(self) -> str:
        """Tells declarations apart that want other files."""
        return hashlib.sha256("\n".join(file.model_dump_json() for file in self.files).encode()).hexdigest()


@cache
def data_sets() -> Mapping[str, DataSet]:
    """All that are declared, by name, family after family."""
    found: dict[str, DataSet] = {}
    folder = resources.files(__package__) / "catalogue"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            for each in _sets(yaml.safe_load(file.read_text(encoding="utf-8"))):
                if each.name in found:
                    raise ValueError(f"{each.name} is declared twice")
                found[each.name] = each
    return found


def find(name: str) -> DataSet:
    """The data set of a name.

    Raises:
        UserError: none is declared under it.
    """
    if name not in data_sets():
        raise UserError(f"unknown data set '{name}'", cure=did_you_mean(name, data_sets()))
    return data_sets()[name]


def _sets(families: list[dict[str, Any]]) -> list[DataSet]:
    found = []
    for family in families:
        common = {key: value for key, value in family.items() if key not in {"names", "each", "sets"}}
        sets: dict[str, dict[str, Any]] = dict(family.get("sets", {}))
        made: dict[str, dict[str, str]] = {name: {} for name in sets}
        if "names" in family:
            made = {
                family["names"].replace("{slug}", slug): {"{category}": category}
                for slug, category in family["each"].items()
            }
            if unknown := sets.keys() - made.keys():
                raise ValueError(f"{unknown} are none of the names of '{family['family']}'")
        for name, words in made.items():
            values = {**common, **sets.get(name, {}), "name": name}
            values["data"] = {**common.get("data", {}), **sets.get(name, {}).get("data", {})}
            found.append(DataSet.model_validate(_filled(values, words)))
    return found


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, words) for each in value]
    if isinstance(value, str):
        for word, meaning in words.items():
            value = value.replace("{category words}", meaning.replace("_", " ")).replace(word, meaning)
    return value
