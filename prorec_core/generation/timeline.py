"""The timeline generator: one token an item, a causal transformer over items, a small decoder over codes.

Knows codes and positions; knows nothing of users' ids, text or training. One pass over a history gives the
context of every position. Axes as in `base`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import GeneratorConfig
from prorec_core.generation.base import Context, Generator, Items
from prorec_core.sequential.base import SequentialModel
from prorec_core.sequential.transformer import CausalTransformer, FeedForward
from prorec_core.training.batching import HistoryBatch


class DepthDecoder(nn.Module):
    """Turns a context and the codes chosen so far into the state before the next code.

    The codes' vectors are added to the context, with a vector of the level; then come residual feed-forward
    layers. With three or four codes an attention over them would cost more and say no more.
    """

    compiled: ClassVar[bool] = True

    def __init__(self, dim: int, depth: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.randn(depth + 1, dim) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.layers = nn.ModuleList(FeedForward(dim, 2 * dim, dropout) for _ in range(layers))

    def forward(self, state: Tensor) -> Tensor:
        """States before codes, shape (…, D), each from the sum of its context, codes before it, and level."""
        for norm, layer in zip(self.norms, self.layers, strict=True):
            state = state + layer(norm(state))
        return state


class Timeline(Generator):
    """A causal transformer over items whose state at a position is decoded into the next item's codes."""

    every_position = True

    def __init__(self, config: GeneratorConfig, items: Items, low_precision: bool) -> None:
        super().__init__(config, items, low_precision)
        self.transformer = CausalTransformer(
            config.dim, config.layers, config.heads, config.max_history, config.dropout
        )
        self.decoder = DepthDecoder(config.dim, items.trie.depth, config.decoder_layers, config.dropout)

    def own_contexts(self, batch: HistoryBatch, rows_P: Tensor, columns_P: Tensor) -> Context:
        states_BLD = self.transformer(self.item_tokens(batch.items_BL))
        return Context(states_BLD[rows_P, columns_P])

    def hidden(self, context: Context, codes_PHl: Tensor, *, summaries: bool = False) -> Tensor:
        _, beams, count = codes_PHl.shape
        state = context.vector_PD[:, None, None, :].expand(-1, beams, count + 1, -1)
        if vectors := self._vectors(codes_PHl):
            state = state + F.pad(torch.stack(vectors, dim=2).cumsum(2), (0, 0, 1, 0))
        levels = self.decoder.levels[: count + 1]
        if summaries and self.summary_tokens is not None:
            # Without attention a token is a vector beside that of the level after the last code.
            state = torch.cat([state, state[:, :, -1:].expand(-1, -1, len(self.summary_tokens), -1)], dim=2)
            levels = torch.cat([levels, levels[-1] + self.summary_tokens])
        out: Tensor = self.decoder(state + levels)
        return out

    def hidden_of(self, context: Context, codes_Pl: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        before_PD, parts = context.vector_PD, []
        for level, rows_W in enumerate(rows):
            if level > 0:
                before_PD = before_PD + F.embedding(codes_Pl[:, level - 1], self.code_vectors[level - 1])
            parts.append(F.embedding(rows_W, before_PD) + self.decoder.levels[level])
        states: Tensor = self.decoder(torch.cat(parts))
        return list(states.split([len(part) for part in parts]))

    def next_hidden(self, context: Context, codes_PHl: Tensor) -> Tensor:
        level = codes_PHl.shape[2]
        state = context.vector_PD[:, None, :].expand(-1, codes_PHl.shape[1], -1)
        for vector in self._vectors(codes_PHl):
            state = state + vector
        out: Tensor = self.decoder(state + self.decoder.levels[level])
        return out

    def _vectors(self, codes_PHl: Tensor) -> list[Tensor]:
        return [F.embedding(codes_PHl[..., level], self.code_vectors[level]) for level in range(codes_PHl.shape[2])]

    def warm_start(self, stage_one: SequentialModel) -> list[nn.Parameter]:
        """Start the transformer as Stage I's, and with it the layers in and out of the item space.

        So before training the queries of the nodes and of the integrated teacher rank as Stage I does.
        """
        queries = [*self.node_queries, *(query for name, query in self.dense_queries.items() if name == "integrated")]
        reads_vectors = self.config.history == "codes_and_embedding"
        if not reads_vectors or not stage_one.copy_into(self.transformer, self.embed, queries):
            return []
        return [*self.transformer.parameters(), *self.embed.parameters()]
