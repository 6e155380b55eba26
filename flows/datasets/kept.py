"""Where fetched data sets are kept, which licences were accepted, and what files were like when they first came.

Knows one folder of the user: a folder a data set, and three records beside them. Knows nothing of downloads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import platformdirs

from prorec.flows.datasets.declared import DataSet, Licence
from prorec_core.artifacts import read_json, write_json
from prorec_core.errors import UserError

VARIABLE = "PROREC_DATASETS"
RECORD = ".record.json"
_ACCEPTED, _KNOWN, _LOCK = "accepted.json", "known.json", ".lock"


def root() -> Path:
    """The folder of all data sets: `PROREC_DATASETS`, by default in the user's cache.

    Raises:
        UserError: it is no folder.
    """
    chosen = os.environ.get(VARIABLE)
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("prorec") / "datasets"
    if folder.exists() and not folder.is_dir():
        raise UserError("this is a file", place=f"{VARIABLE} {folder}", cure="Name a folder")
    return folder.absolute()


def folder_of(dataset: DataSet) -> Path:
    """Where a data set is kept."""
    return root() / dataset.name


def is_whole(dataset: DataSet) -> bool:
    """Whether all of its files are there, as they were when they came."""
    folder = folder_of(dataset)
    record = _read(folder / RECORD)
    sizes = {each["name"]: each["bytes"] for each in record.get("files", ())}
    return record.get("declared") == dataset.digest and all(
        _like(folder / file.name, sizes.get(file.name, -1)) and (not file.unpack or file.unpacked_in(folder).is_dir())
        for file in dataset.files
    )


def note_whole(dataset: DataSet, files: list[dict[str, Any]]) -> None:
    """Keep that a data set is whole: `name`, `bytes`, `sha256` and `from` of each file."""
    found = {"name": dataset.name, "declared": dataset.digest, "when": _now(), "files": files}
    write_json(folder_of(dataset) / RECORD, found)


def accepted(licence: Licence) -> bool:
    """Whether there is nothing to accept, or it was accepted as it stands."""
    return not licence.accept or _read(root() / _ACCEPTED).get(licence.key, {}).get("terms") == _terms(licence)


def accept(licence: Licence) -> None:
    """Keep that a licence was accepted."""
    with _alone():
        write_json(
            root() / _ACCEPTED, {**_read(root() / _ACCEPTED), licence.key: {"terms": _terms(licence), "when": _now()}}
        )


def known(address: str) -> dict[str, Any]:
    """What the file of an address was like when it first came: `sha256`, `bytes` and `when`; {} if it never did."""
    found: dict[str, Any] = _read(root() / _KNOWN).get(address, {})
    return found


def note_known(address: str, sha256: str, size: int) -> None:
    """Keep what the file of an address is like, unless that is known."""
    with _alone():
        every = _read(root() / _KNOWN)
        if address not in every:
            write_json(root() / _KNOWN, {**every, address: {"sha256": sha256, "bytes": size, "when": _now()}})


def _like(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _terms(licence: Licence) -> str:
    return f"{licence.name} ({licence.url}); it forbids: {licence.forbids}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except (ValueError, RecursionError) as error:
        raise UserError("the record cannot be read", place=str(path), cure="Delete it") from error
    return found if isinstance(found, dict) else {}


@contextmanager
def _alone() -> Iterator[None]:
    """No two processes change the records at once."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / _LOCK).open("wb") as lock:
        flock(lock, LOCK_EX)
        yield
