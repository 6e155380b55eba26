"""Tables kept as Parquet files in a folder that has their digest as its name: written whole, and checked when read.

Knows record batches and folders. Knows nothing of where the rows are from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prorec_core.artifacts import sha256_file, sha256_json, sync
from prorec_core.data.tables import reading
from prorec_core.errors import UserError

_BEGUN = ".begun-"
_LOCK, _GATE = "lock", ".gate"
_DIGEST = re.compile("[0-9a-f]{64}")
State = tuple[str | tuple[int, int, int], ...]
_seen_whole: set[State] = set()
_ROWS = 1 << 17
"""Rows of a row group: the same rows give the same file, however they came."""


def keep(folder: Path, tables: Mapping[str, Iterable[pa.RecordBatch]]) -> str:
    """Write tables, and give the digest under which they are kept; what is there already stays.

    Args:
        folder: where snapshots are.
        tables: by name the batches of each, at least one, all of one schema.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _begun(folder) as begun:
        for name, batches in tables.items():
            _write(begun / f"{name}.parquet", batches)
        digest = _digest(begun, tables)
        final = folder / digest
        if not _is_whole(final, tables, digest):
            shutil.rmtree(final, ignore_errors=True)
            (begun / _LOCK).unlink()
            # Another process may have kept the same rows in the meantime.
            with suppress(OSError):
                begun.rename(final)
                _seen_whole.add(_state(final, tables))
            sync(folder)
    if not _is_whole(final, tables, digest):
        raise UserError("the snapshot could not be kept", place=str(final), cure="Check the folder and the room there")
    return digest


def kept(folder: Path, digest: str, names: Iterable[str]) -> Path:
    """The folder of a snapshot, its files checked.

    Raises:
        UserError: there is none, or its files are not what its name says.
    """
    found = folder / digest
    with reading(str(found)):
        if not _DIGEST.fullmatch(digest) or not found.is_dir():
            raise UserError(
                "there is no such snapshot", place=str(found), cure="Check data.sql.snapshot, or leave it out"
            )
        if not _is_whole(found, names, digest):
            raise UserError(
                "the snapshot is not what was kept: its digest differs", place=str(found), cure="Delete it, ask again"
            )
    # Whoever clears up sees that it is of use.
    with suppress(OSError):
        os.utime(found)
    return found


def _is_whole(folder: Path, names: Iterable[str], digest: str) -> bool:
    """Whether the files are what the name of their folder says; a process reads them once while nobody writes them."""
    if not all((folder / f"{name}.parquet").is_file() for name in names):
        return False
    state = _state(folder, names)
    if state not in _seen_whole and _digest(folder, names) == digest:
        _seen_whole.add(state)
    return state in _seen_whole


def _state(folder: Path, names: Iterable[str]) -> State:
    """The folder, and of each file where it is, how large and when it was written."""
    found = [(folder / f"{name}.parquet").stat() for name in sorted(names)]
    return str(folder.absolute()), *((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


def _digest(folder: Path, names: Iterable[str]) -> str:
    return sha256_json({name: sha256_file(folder / f"{name}.parquet") for name in sorted(names)})


def _write(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    coming = iter(batches)
    first = next(coming)
    schema = pa.schema([pa.field(each.name, _plain(each.type)) for each in first.schema])
    waiting: list[pa.RecordBatch] = []
    rows = 0
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in coming:
                waiting.append(pa.RecordBatch.from_arrays([_stored(each) for each in batch.columns], schema=schema))
                rows += batch.num_rows
                if rows >= _ROWS:
                    table = pa.Table.from_batches(waiting)
                    whole = rows - rows % _ROWS
                    writer.write_table(table.slice(0, whole), row_group_size=_ROWS)
                    waiting, rows = table.slice(whole).to_batches(), rows - whole
            writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=_ROWS)
        file.flush()
        os.fsync(file.fileno())


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type that values of an extension are stored in, as numbers of a database that are texts."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _stored(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column, pa.ExtensionArray) else column


@contextmanager
def _begun(folder: Path) -> Iterator[Path]:
    """A folder to write in, which goes away unless it is renamed; a lock in it says that its process lives."""
    with (folder / _GATE).open("wb") as gate:
        # Nobody sweeps while a folder has no lock yet.
        fcntl.flock(gate, fcntl.LOCK_EX)
        _sweep(folder)
        begun = Path(tempfile.mkdtemp(dir=folder, prefix=_BEGUN))
        lock = (begun / _LOCK).open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield begun
        finally:
            shutil.rmtree(begun, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Take away what processes left that were killed."""
    for begun in folder.glob(f"{_BEGUN}*"):
        with suppress(OSError), (begun / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(begun, ignore_errors=True)


def name_of(parts: Iterable[str]) -> str:
    """A short name for some texts that tells nothing of them."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
