from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prorec_core.config import QuantizeConfig, RQVAEConfig
from prorec_core.quantization.quantizer import Floats

SMALL_RQ_VAE = RQVAEConfig(epochs=6, batch_size=64, hidden=[16], latent=6)


@pytest.fixture(scope="session")
def clustered() -> Callable[..., Floats]:
    """Embeddings in clusters of very unequal size."""

    def make(items: int = 240, dims: int = 6, clusters: int = 9, seed: int = 0) -> Floats:
        random = np.random.default_rng(seed)
        centres = random.normal(size=(clusters, dims))
        cluster = random.choice(clusters, items, p=random.dirichlet(np.ones(clusters)))
        points = centres[cluster] + 0.3 * random.normal(size=(items, dims))
        return points.astype(np.float32)

    return make


@pytest.fixture(scope="session")
def small_config() -> Callable[..., QuantizeConfig]:
    """Three levels of eight codes, and what a test wants otherwise."""

    def make(**changes: Any) -> QuantizeConfig:
        return QuantizeConfig(**{"levels": 3, "codes": 8, "rq_vae": SMALL_RQ_VAE, **changes})

    return make
