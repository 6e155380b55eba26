"""Text encoders ready for use. Knows how one is loaded safely; knows nothing of items."""

from __future__ import annotations

import torch
from sentence_transformers import SentenceTransformer

from prorec_core.errors import UserError
from prorec_core.text.location import find_encoder


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
