"""Where a folder of artifacts was when MLflow's database in it noted the addresses of its files, and where it is now.

MLflow notes them whole. Of a folder that was moved they lead nowhere, of a copy to the original, which would be written
to and deleted from. Knows the columns that hold addresses, and that the folder has one file a database; knows nothing
of runs.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from prorec.tasks.local import paths, processes
from prorec_core.errors import UserError

STORE = "prorec store"
"""The MLflow experiment that every store has."""

_FOLDERS = (("runs", "artifact_uri"), ("logged_models", "artifact_location"))
_COLUMNS = (
    *_FOLDERS,
    ("experiments", "artifact_location"),
    ("tags", "value"),
    ("trace_tags", "value"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns with addresses; only values that are one below the former folder are touched."""

_log = logging.getLogger(__name__)


def former(database: sqlite3.Connection, path: Path) -> Path | None:
    """Where the store of an embedded database was, if the folder was moved or copied since.

    The same folder by another name, through a link, was not; nor was a database that a user put somewhere else.
    """
    if not _same(path.parent, paths.artifacts()):
        return None
    found = database.execute("SELECT artifact_location, experiment_id FROM experiments WHERE name = ?", (STORE,))
    location, number = found.fetchone() or ("", 0)
    # A server adds the experiment's number.
    store = paths.local_path((location or "").removesuffix(f"/{number}"))
    if store is None or not store.is_absolute() or store.name != paths.store().name:
        return None
    return None if _same(store.parent, path.parent) else store


def follow(database: sqlite3.Connection, path: Path) -> None:
    """Have all addresses below the former store lead below the present one, all at once or none.

    Raises:
        UserError: the former folder and this one are not apart, files are missing here, or a process is at work here.
    """
    store = former(database, path)
    if store is None or not _expect_apart(database, path, store):
        return
    # They hold addresses, too; without them artifacts are found by their keys.
    if paths.references().exists():
        shutil.rmtree(paths.references())
    now = paths.file_uri(paths.store())
    with database:
        database.execute("BEGIN IMMEDIATE")
        for table, column in _COLUMNS:
            for before in sorted({str(store), store.as_uri()}):
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
                )
    _log.warning("%s was moved or copied from %s: its addresses lead here now", path.parent, store.parent)


def _expect_apart(database: sqlite3.Connection, path: Path, store: Path) -> bool:
    """Whether the files are here; False where the database alone was put elsewhere, and nothing else knows them."""
    beside, here = store.with_name(path.name), paths.store()
    copied = _there(beside)
    for mine, other in ((path, beside), (here, store)):
        if copied and _same(mine, other):
            raise UserError(
                f"it is {other} by another name, and {path.parent} a copy of {store.parent}",
                place=str(mine),
                cure="Copy what the link leads to, or use the other folder",
            )
    places = [place.relative_to(store) for place in _folders(database) if place.is_relative_to(store)]
    missing = [place for place in places if _there(store / place) and not _there(here / place)]
    if missing:
        if not copied and not any(_there(here / place) for place in places):
            return False
        raise UserError(
            f"it came from {store.parent}, and files of {len(missing)} of its runs and models are only there",
            place=str(path),
            cure=f"Copy what is missing: cp -an {shlex.quote(f'{store}/.')} {shlex.quote(str(here))}",
        )
    if processes.others_live():
        raise UserError(
            f"the folder was at {store.parent}, and a process that began there is at work in it",
            place=str(path.parent),
            cure="Wait for its end, then try again",
        )
    return True


def _folders(database: sqlite3.Connection) -> Iterator[Path]:
    for table, column in _FOLDERS:
        for (address,) in database.execute(f"SELECT {column} FROM {table}"):
            if address and (place := paths.local_path(address)) is not None:
                yield place


def _there(place: Path) -> bool:
    return _same(place, place)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
