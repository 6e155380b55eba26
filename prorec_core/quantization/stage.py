"""Stage `quantize`: from item embeddings to the code table. Knows the choices; knows nothing of their insides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from prorec_core.artifacts import read_json, write_bytes, write_json
from prorec_core.config import QuantizeConfig
from prorec_core.errors import UserError, did_you_mean
from prorec_core.progress import Report, silent
from prorec_core.quantization.balanced_kmeans import BalancedKMeans
from prorec_core.quantization.collisions import add_suffix, free_beside, reassign, suffix_beside
from prorec_core.quantization.hierarchical_kmeans import HierarchicalKMeans
from prorec_core.quantization.quality import collision_quality, level_quality
from prorec_core.quantization.quantizer import (
    Codes,
    Floats,
    Quantizer,
    State,
    check_embeddings,
    level_centroids,
    relative_error,
)
from prorec_core.quantization.residual_kmeans import ResidualKMeans
from prorec_core.quantization.rq_vae import RQVAE
from prorec_core.quantization.table import CodeTable

METHODS: dict[str, type[Quantizer]] = {
    kind.method: kind for kind in (ResidualKMeans, BalancedKMeans, HierarchicalKMeans, RQVAE)
}
"""Every quantizer by its name in the configuration."""

_CENTROIDS = "level_centroids."
_QUANTIZER = "quantizer."


@dataclass(frozen=True)
class Quantized:
    """What the stage leaves.

    Attributes:
        table: the code table.
        codebooks: named arrays: `level_centroids.0` … `level_centroids.{L-1}`, float32 (K, D), what each code
            means in the space of the embeddings; and `quantizer.*`, the fitted quantizer's state.
        quality: `method`; `items`; `levels`, a list with the figures of `level_quality` for each level of the
            table, the suffix included, and for each level but the suffix `relative_error`, the reconstruction
            error after it; `collisions`: `handling`, `before` and `after` (`collision_quality`), and `moved`,
            items whose codes handling changed; `relative_error` of the final codes.
        cold: the code table of new items, none of whose tuples is in `table`; None where there are none.
    """

    table: CodeTable
    codebooks: State
    quality: dict[str, Any]
    cold: CodeTable | None = None

    def all_items(self) -> CodeTable:
        """The code table of all items: the new ones stand after the others."""
        if self.cold is None:
            return self.table
        codes = np.concatenate([self.table.codes, self.cold.codes])
        return CodeTable(codes, [*self.table.item_ids, *self.cold.item_ids])

    @property
    def level_centroids(self) -> list[Floats]:
        """One array a code level without the suffix, float32 (K, D); zero rows are codes that no item has."""
        names = [name for name in self.codebooks if name.startswith(_CENTROIDS)]
        return [self.codebooks[f"{_CENTROIDS}{level}"] for level in range(len(names))]

    @property
    def quantizer(self) -> Quantizer:
        """The fitted quantizer, for instance to encode new items."""
        method = self.quality["method"]
        if method not in METHODS:
            raise UserError(f"unknown quantizer '{method}'", place="quality.json", cure=did_you_mean(method, METHODS))
        state = {
            name.removeprefix(_QUANTIZER): value
            for name, value in self.codebooks.items()
            if name.startswith(_QUANTIZER)
        }
        return METHODS[method].from_state(state)

    def save(self, folder: Path) -> None:
        """Write codes.parquet (cold_codes.parquet for new items), codebooks.safetensors and quality.json."""
        if self.cold is not None:
            self.cold.save(folder / "cold_codes.parquet")
        self.table.save(folder / "codes.parquet")
        arrays = {name: np.ascontiguousarray(value) for name, value in self.codebooks.items()}
        write_bytes(folder / "codebooks.safetensors", save(arrays))
        write_json(folder / "quality.json", self.quality)

    @classmethod
    def load(cls, folder: Path) -> Quantized:
        """Read what `save` wrote."""
        return cls(
            CodeTable.load(folder / "codes.parquet"),
            load((folder / "codebooks.safetensors").read_bytes()),
            read_json(folder / "quality.json"),
            CodeTable.load(folder / "cold_codes.parquet") if (folder / "cold_codes.parquet").is_file() else None,
        )

    def with_new(self, config: QuantizeConfig, embeddings: npt.NDArray[np.float32], item_ids: list[str]) -> Quantized:
        """The same, with codes for items that were not there in `quantize`; nothing of the others changes.

        The fitted quantizer encodes them as it stands. Where a tuple is taken, the suffix goes on, or without a
        suffix the nearest free tuple is given.

        Args:
            config: that of `quantize`.
            embeddings: of the new items, in the space that was quantized, float32, shape (new items, D).
            item_ids: the new items' own ids, in the same order.

        Raises:
            UserError: embeddings that are missing or not finite, or no free tuple is left.
        """
        embeddings_ND = check_embeddings(embeddings)
        found = self.quantizer.encode(embeddings_ND)
        if config.collisions == "suffix":
            codes = suffix_beside(found, self.table.codes)
        else:
            codes = free_beside(found, embeddings_ND, self.table.codes, config.codes, self.quantizer.decode)
        return replace(self, cold=CodeTable(codes, list(item_ids)))


def quantize(
    config: QuantizeConfig,
    embeddings: npt.NDArray[np.float32],
    item_ids: list[str],
    seed: int,
    report: Report = silent,
) -> Quantized:
    """Give every item its own tuple of codes.

    Args:
        config: the method, its size, and how collisions are handled.
        embeddings: float32, shape (items, D), in the order of the item indices.
        item_ids: the items' own ids, in the same order.
        seed: with equal input and seed the files are equal to the byte on the same machine.
        report: told after each level (or epoch).

    Raises:
        UserError: embeddings that are missing or not finite, or collisions that cannot be resolved.
    """
    embeddings_ND = check_embeddings(embeddings)
    if len(item_ids) != len(embeddings_ND):
        raise UserError(
            f"{len(embeddings_ND)} embeddings and {len(item_ids)} items",
            place="quantize",
            cure="Take both from the same run",
        )
    quantizer, found = METHODS[config.method].fit(embeddings_ND, config, seed, report)
    if config.collisions == "suffix":
        level_codes, final = found, add_suffix(found)
    else:
        level_codes = final = reassign(found, embeddings_ND, config.codes, quantizer.decode)
    quality = _quality(config, quantizer, embeddings_ND, found, level_codes, final)
    codebooks = {
        f"{_CENTROIDS}{level}": centroids
        for level, centroids in enumerate(level_centroids(embeddings_ND, level_codes, config.codes))
    }
    codebooks |= {f"{_QUANTIZER}{name}": value for name, value in quantizer.state().items()}
    return Quantized(CodeTable(final, list(item_ids)), codebooks, quality)


def _quality(
    config: QuantizeConfig,
    quantizer: Quantizer,
    embeddings_ND: Floats,
    found_NL: Codes,
    level_codes_NL: Codes,
    final: Codes,
) -> dict[str, Any]:
    """See `Quantized.quality`: codes as found, after handling without the suffix, and as in the table."""
    levels = []
    for level, codes in enumerate(final.T):
        is_suffix = level == config.levels
        figures = level_quality(codes, int(codes.max()) + 1 if is_suffix else config.codes)
        if not is_suffix:
            decoded = quantizer.decode(level_codes_NL[:, : level + 1])
            figures["relative_error"] = relative_error(embeddings_ND, decoded)
        levels.append({"level": level, "suffix": is_suffix, **figures})
    return {
        "method": config.method,
        "items": len(final),
        "levels": levels,
        "relative_error": levels[config.levels - 1]["relative_error"],
        "collisions": {
            "handling": config.collisions,
            "before": collision_quality(found_NL),
            "after": collision_quality(final),
            "moved": int((found_NL != level_codes_NL).any(axis=1).sum()),
        },
    }
