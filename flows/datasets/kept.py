"""Where fetched data sets are kept, which licences were accepted, and what files were like when they first came.

Knows one folder of the user: a folder a data set, and three records beside them. Knows nothing of downloads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

import platformdirs

from prorec.flows.datasets.declared import DataSet, File, Licence
from prorec_core.artifacts import read_json, write_json
from prorec_core.errors import UserError
from prorec_core.paths import path_of

VARIABLE = "PROREC_DATASETS"
RECORD = ".record.json"
_ACCEPTED, _KNOWN, _LOCK = "accepted.json", "known.json", ".lock"


def root() -> Path:
    """The folder of all data sets: `PROREC_DATASETS`, by default in the user's cache.

    Raises:
        UserError: it is no folder.
    """
    chosen = os.environ.get(VARIABLE)
    folder = path_of(chosen) if chosen else platformdirs.user_cache_path("prorec") / "datasets"
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


def came_from(dataset: DataSet, file: File, sha256: str) -> str:
    """The address that a file came from, as far as that was noted; "" for one that was handed over."""
    record = _read(folder_of(dataset) / RECORD)
    same = [each for each in record.get("files", ()) if (each["name"], each["sha256"]) == (file.name, sha256)]
    return str(same[0]["from"]) if same else ""


def is_unpacked(folder: Path, sha256: str) -> bool:
    """Whether a folder has all that the archive of this sha256 held."""
    found = _read(_mark(folder))
    return found.get("sha256") == sha256 and all(_like(folder / name, size) for name, size in found["files"].items())


def note_unpacked(folder: Path, sha256: str, files: Iterable[Path]) -> None:
    """Keep what was unpacked into a folder, and of which archive."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    write_json(_mark(folder), {"sha256": sha256, "files": sizes})


def _mark(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unpacked.json")


@contextmanager
def at_work(dataset: DataSet, waiting: Callable[[], None]) -> Iterator[None]:
    """The right to change the files of a data set, one process's at a time; `waiting` is called before a wait."""
    folder_of(dataset).mkdir(parents=True, exist_ok=True)
    with (folder_of(dataset) / _LOCK).open("wb") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except OSError:
            waiting()
            flock(lock, LOCK_EX)
        yield


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
