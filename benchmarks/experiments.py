"""Experiments of benchmarks, and words that stand in for an encoder. Knows configuration; runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.random_projection import GaussianRandomProjection

from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.fitting import open_fields

TEXT_DIMENSIONS = 384


def experiment_for(config: Path, data: Path, device: str = "cpu") -> Experiment:
    """The experiment in a YAML file, on the data in a folder, on a device.

    Raises:
        UserError: it leaves numbers to the data.
    """
    found = Experiment.model_validate(yaml.safe_load(config.read_text(encoding="utf-8")))
    if missing := open_fields(found):
        raise UserError(
            f"leaves {', '.join(missing)} to the data",
            place=str(config),
            cure=f"Take what `prorec config show {config} --data` prints",
        )
    return changed(found, {"data": {"path": str(data)}}).model_copy(update={"device": device})


def changed(experiment: Experiment, sections: dict[str, dict[str, Any]]) -> Experiment:
    """The experiment with other values in some sections; whether they are in range is not checked."""
    update = {name: getattr(experiment, name).model_copy(update=values) for name, values in sections.items()}
    return experiment.model_copy(update=update)


def hashed_words(texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors of texts by the words in them, float32, shape (texts, 384): they cost what an encoder's do."""
    words = HashingVectorizer(n_features=2**15).transform(texts)
    projected = GaussianRandomProjection(TEXT_DIMENSIONS, random_state=0).fit_transform(words)
    return np.ascontiguousarray(projected, dtype=np.float32)
