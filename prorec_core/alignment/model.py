"""Stage I: the integrated embedding and the sequential model that reads it.

Knows how the two modalities are joined; knows nothing of training or files. Axes: N items, S text dimensions,
D model dimensions, E dimensions of the integrated embedding (D for `sum`, 2 D for `concat`), R some of the items, K
neighbours of one, M those items and their neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.alignment.adapter import AdaLNAdapter
from prorec_core.alignment.graph import ItemGraph
from prorec_core.config import AlignConfig, CollaborativeConfig
from prorec_core.sequential.base import ITEM_DEVIATION
from prorec_core.sequential.trained import build_model
from prorec_core.training.rows import RowTable
from prorec_core.training.sampling import MetItems, multiple
from prorec_core.training.workers import ALONE, Workers

_AT_ONCE = 65_536
"""Texts of a large catalogue that are adapted at a time where all are."""


def fused_dim(config: AlignConfig, dim: int) -> int:
    """Dimensions E of the integrated embedding."""
    match config.fusion:
        case "concat":
            return 2 * dim
        case "sum":
            return dim


def fused(config: AlignConfig, collaborative_ND: Tensor, semantic_ND: Tensor) -> Tensor:
    """E_I of some items from their E_C and E_T, shape (N, E)."""
    match config.fusion:
        case "concat":
            return torch.cat([collaborative_ND, semantic_ND], dim=-1)
        case "sum":
            return collaborative_ND + semantic_ND


class StageOne(nn.Module):
    """E_C (free), E_T (adapted from the frozen E_S), their fusion E_I, and the sequential model over E_I.

    With a graph, what is fused is also smoothed over the items' neighbours.
    """

    def __init__(
        self,
        config: AlignConfig,
        collaborative: CollaborativeConfig,
        text_NS: Tensor,
        graph: ItemGraph | None,
        low_precision: bool,
        *,
        by_rows: bool = False,
        workers: Workers = ALONE,
    ) -> None:
        """
        Args:
            config: fusion and what else is Stage I's.
            collaborative: the shape of the sequential model.
            text_NS: E_S, scaled.
            graph: of neighbours; None: without.
            low_precision: whether products may be made in bfloat16.
            by_rows: whether a step meets some items alone.
            workers: among whom the items are cut that are adapted.
        """
        super().__init__()
        self.config = config
        self.graph = graph
        self.workers = workers
        dim = collaborative.dim
        self.items = RowTable(torch.randn(len(text_NS), dim) * ITEM_DEVIATION, by_rows=by_rows)
        self.adapter = AdaLNAdapter(text_NS.shape[1], dim)
        self.model = build_model(collaborative, config, fused_dim(config, dim), low_precision)
        self.text_NS: Tensor
        self.register_buffer("text_NS", text_NS, persistent=False)
        self.low_NS: Tensor | None
        # Of a large catalogue a step takes some rows, and a second table would be gigabytes.
        low = text_NS.to(torch.bfloat16) if low_precision and not by_rows else None
        self.register_buffer("low_NS", low, persistent=False)

    def embeddings(self) -> tuple[Tensor, Tensor, Tensor]:
        """E_I, E_C and E_T of all items, shapes (N, E), (N, D), (N, D)."""
        # Of a large catalogue piece by piece: what the adapter makes on its way is several tables.
        texts_NS = self._texts()
        texts = texts_NS.split(_AT_ONCE) if self.items.by_rows else (texts_NS,)
        adapted = [self.workers.spread(self.adapter, piece) for piece in texts]
        semantic_ND = torch.cat(adapted) if len(adapted) > 1 else adapted[0]
        fused_NE = self.fused(self.items.weight, semantic_ND)
        return fused_NE if self.graph is None else self.graph(fused_NE), self.items.weight, semantic_ND

    def embeddings_of(self, met: MetItems) -> tuple[Tensor, Tensor, Tensor]:
        """E_I, E_C and E_T of the items that a step meets, shapes (R, E), (R, D), (R, D).

        Nothing is looked at but these items and their neighbours in the graph.
        """
        items_R = met.items_R
        if self.graph is None:
            ids_RD, semantic_RD = self.items(items_R, repeated=met.fixed), self._adapted(items_R)
            return self.fused(ids_RD, semantic_RD), ids_RD, semantic_RD
        neighbours_RK, strengths_RK = self.graph.neighbours(items_R, fixed=met.fixed)
        items_M = torch.cat([items_R, neighbours_RK.flatten()])
        if met.fixed:
            # How many differ is not known here; room for all of them is as large as all of them.
            places = torch.arange(len(items_M), device=items_M.device)
        else:
            items_M, places = torch.unique(items_M, return_inverse=True)
        own_R, places_RK = places[: len(items_R)], places[len(items_R) :].view(neighbours_RK.shape)
        ids_MD, semantic_MD = self.items(items_M, repeated=met.fixed), self._adapted(items_M)
        fused_ME = self.fused(ids_MD, semantic_MD)
        integrated_RE = self.graph.smoothed(
            F.embedding(own_R, fused_ME), F.embedding(places_RK, fused_ME), strengths_RK
        )
        return integrated_RE, F.embedding(own_R, ids_MD), F.embedding(own_R, semantic_MD)

    def _adapted(self, items_R: Tensor) -> Tensor:
        """E_T of some items, shape (R, D)."""
        count = len(items_R)
        padded, texts_NS = F.pad(items_R, (0, multiple(count) - count)), self._texts()
        return self.workers.spread(lambda rows: self.adapter(texts_NS[rows]), padded)[:count]

    def _texts(self) -> Tensor:
        """E_S as the adapter's product takes it: what a step would round anew each time is rounded once."""
        if self.low_NS is not None and torch.is_autocast_enabled(self.text_NS.device.type):
            return self.low_NS
        return self.text_NS

    def fused(self, collaborative_ND: Tensor, semantic_ND: Tensor) -> Tensor:
        """E_I of some items from their E_C and E_T, shape (N, E); nothing of their neighbours."""
        return fused(self.config, collaborative_ND, semantic_ND)
