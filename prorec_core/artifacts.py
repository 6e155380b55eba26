"""What a stage leaves: files written whole or not at all, and a manifest that describes them.

Knows files, hashes and formats. Knows nothing of where artifacts are kept, of tracking or of the method.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from prorec_core.errors import UserError

MANIFEST = "manifest.json"
_SCHEMA_KEY = b"prorec_schema_version"
_LIBRARIES = ("torch", "polars", "pyarrow", "numpy", "scikit-learn", "sentence-transformers", "transformers")


def expect_empty(folder: Path) -> None:
    """Refuse a folder that cannot be made or that holds something.

    Raises:
        UserError: it is so.
    """
    above = folder.absolute().parent
    if not above.is_dir():
        raise UserError("the folder does not exist", place=str(above), cure="Make it first")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UserError("something is there already", place=str(folder), cure="Name a new folder")
    try:
        # What it may be is not asked: root may write everywhere, and not below /proc.
        Path(tempfile.mkdtemp(dir=above, prefix=".prorec-")).rmdir()
    except OSError:
        raise UserError("the folder cannot be written", place=str(above), cure="Choose another") from None


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """The place of a folder, not there yet, that takes the name `folder` whole when the context ends, or not at all.

    Raises:
        UserError: as `expect_empty`.
    """
    expect_empty(folder)
    beside = folder.absolute().parent / f".{folder.name}-{uuid4().hex[:8]}"
    try:
        yield beside
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


class ArtifactRef(BaseModel):
    """Where one stage's artifact is. The only thing that tasks exchange and that Prefect keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    digest: str
    run_id: str
    uri: str


class FileEntry(BaseModel):
    """One file of an artifact; `bytes` is its size."""

    path: str
    sha256: str
    bytes: int


class Manifest(BaseModel):
    """The description of an artifact, written after all its other files.

    Attributes:
        made_with: kind of device and number format of the work, which are in no cache key; empty where neither matters.
    """

    stage: str
    schema_version: int
    config: dict[str, Any]
    upstream: dict[str, str]
    files: list[FileEntry]
    libraries: dict[str, str]
    git_commit: str | None
    made_with: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """The artifact's identity: sha256 over the names and hashes of its files (hex)."""
        lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in sorted(self.files, key=lambda e: e.path))
        return hashlib.sha256(lines.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Hex sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass
class Draft:
    """A file that is being written: where, and the name that it gets once it is whole."""

    path: Path
    target: Path


@contextmanager
def written_whole(target: Path) -> Iterator[Draft]:
    """Have a file written whole or not at all: to a temporary name beside it, synced, then renamed over it.

    Args:
        target: its name; whoever knows it only at the end changes the draft's, in the same folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name may be as long as the file system lets it be.
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:50]}.")
    os.close(descriptor)
    draft = Draft(Path(temporary), target)
    try:
        yield draft
        sync(draft.path)
        draft.path.chmod(0o644)
        draft.path.replace(draft.target)
    except BaseException as error:
        draft.path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            # A failed write does not know of which file.
            error.filename = str(target)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with written_whole(path) as draft:
        draft.path.write_bytes(content)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, be on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: object) -> None:
    """Write a value as readable JSON with sorted keys, so that equal values give equal bytes."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file that this project wrote."""
    return json.loads(path.read_text())


def write_parquet(path: Path, table: pa.Table, version: int = 1) -> None:
    """Write a table as Parquet with a version in its metadata, which is raised when columns or their meaning change."""
    metadata = {**(table.schema.metadata or {}), _SCHEMA_KEY: str(version).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd", store_schema=True)
    write_bytes(path, sink.getvalue().to_pybytes())


def read_parquet(path: Path, stage: str, version: int = 1) -> pa.Table:
    """Read a stage's table.

    Args:
        path: the file.
        stage: the stage that makes it anew.
        version: what `write_parquet` was given.

    Raises:
        UserError: the file cannot be read, or was written by an incompatible version of this software.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"the table cannot be read ({error})", place=str(path), cure=f"Run the stage '{stage}' again"
        ) from error
    found = (table.schema.metadata or {}).get(_SCHEMA_KEY, b"?").decode()
    if found != str(version):
        later = found.isdecimal() and int(found) > version
        raise UserError(
            f"the table has schema version {found}, this version of prorec reads {version}",
            place=str(path),
            cure="Use the version that made it, or a later one" if later else f"Run the stage '{stage}' again",
        )
    return table


@cache
def _git_commit() -> str | None:
    source = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that can change an artifact's content."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def write_manifest(
    folder: Path,
    stage: str,
    config: Mapping[str, Any],
    upstream: Mapping[str, str],
    made_with: Mapping[str, str] | None = None,
    version: int = 1,
) -> Manifest:
    """Describe every file in `folder` and write `manifest.json` there, last; `version` is the stage's."""
    files = [
        FileEntry(path=path.relative_to(folder).as_posix(), sha256=sha256_file(path), bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    ]
    manifest = Manifest(
        stage=stage,
        schema_version=version,
        config=dict(config),
        upstream=dict(upstream),
        files=files,
        libraries=library_versions(),
        git_commit=_git_commit(),
        made_with=dict(made_with or {}),
    )
    write_bytes(folder / MANIFEST, (manifest.model_dump_json(indent=1) + "\n").encode())
    return manifest


def verify(folder: Path) -> list[str]:
    """What is wrong with an artifact's files, one sentence each; empty when all is well."""
    path = folder / MANIFEST
    if not path.is_file():
        return [f"{path}: the manifest is missing"]
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError:
        return [f"{path}: the manifest cannot be read"]
    problems = []
    for entry in manifest.files:
        file = folder / entry.path
        if not file.is_file():
            problems.append(f"{file}: the file is missing")
        elif file.stat().st_size != entry.bytes:
            problems.append(f"{file}: has {file.stat().st_size} bytes, the manifest says {entry.bytes}")
        elif sha256_file(file) != entry.sha256:
            problems.append(f"{file}: its content is not what the manifest says (sha256 differs)")
    return problems
