"""The encoder-decoder generator: one token a code, an encoder over the history, a decoder over the target's codes.

The architecture of the paper (and of TIGER). Knows codes and positions; knows nothing of users' ids or text. A
bidirectional encoder cannot give all positions in one pass, so each target costs a pass over its history; the
decoder attends to the encoder's states without copying them for each beam. Axes as in `base`; T tokens.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import GeneratorConfig
from prorec_core.generation.base import Context, Generator, Items, NextHidden
from prorec_core.sequential.transformer import Block, Dropout, FeedForward, KeysValues, attend, exact
from prorec_core.training.batching import HistoryBatch


class CrossAttention(nn.Module):
    """Multi-head attention of queries over a memory."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_PQD: Tensor, memory: KeysValues, visible: Tensor) -> Tensor:
        """Found for each query in what it sees.

        Args:
            x_PQD: queries.
            memory: what `keys_and_values` made of the memory.
            visible: bool, shape (P or 1, Q or 1, M).
        """
        people, queries, dim = x_PQD.shape
        query = exact(self.query(x_PQD)).view(people, queries, self.heads, -1).transpose(1, 2)
        out: Tensor = self.out(attend(query, *memory, visible[:, None]).transpose(1, 2).reshape(people, queries, dim))
        return out

    def keys_and_values(self, memory_PMD: Tensor) -> KeysValues:
        """What queries are held against, and what they find."""
        both = exact(self.key_value(memory_PMD)).unflatten(-1, (2, self.heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4)
        return key, value


class DecoderBlock(nn.Module):
    """Causal self-attention over the codes, attention over the history, feed-forward; pre-norm."""

    compiled: ClassVar[bool] = True

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.own = Block(dim, heads, dropout)
        self.norm = nn.LayerNorm(dim)
        self.cross = CrossAttention(dim, heads)
        self.norm_out = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, 2 * dim, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x_PHTD: Tensor, context: Context) -> Tensor:
        people, beams, tokens, dim = x_PHTD.shape
        x = self.own(x_PHTD.reshape(people * beams, tokens, dim)).view(people, beams * tokens, dim)
        x = x + self.dropout(self._attend(self.norm(x), context))
        return self._fed(x).view(people, beams, tokens, dim)

    def step(
        self, x_PHD: Tensor, memory: KeysValues, visible: Tensor, earlier: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """What comes after the codes of each beam that were seen `earlier`, shape (P, H, D), and what has been seen."""
        own, seen = self.own.step(x_PHD.flatten(0, 1)[:, None], earlier)
        x = own.view_as(x_PHD)
        return self._fed(x + self.dropout(self.cross(self.norm(x), memory, visible))), seen

    def _fed(self, x_PQD: Tensor) -> Tensor:
        out: Tensor = x_PQD + self.dropout(self.feed_forward(self.norm_out(x_PQD)))
        return out

    def _attend(self, x_PQD: Tensor, context: Context) -> Tensor:
        """What the queries of each context find in its memory, shape (P, Q, D)."""
        shared = context.shared
        if shared is None:
            assert context.memory_PMD is not None
            assert context.padding_PM is not None
            memory = self.cross.keys_and_values(context.memory_PMD)
            own: Tensor = self.cross(x_PQD, memory, ~context.padding_PM[:, None, :])
            return own
        # Queries of one history side by side, so that its memory is read once and copied for none of them.
        (_, queries, dim), (length, _) = x_PQD.shape, shared.visible_LM.shape
        places = shared.rows_P, shared.columns_P
        x_BLQD = x_PQD.new_zeros(len(shared.states_BMD), length, queries, dim).index_put(places, x_PQD)
        visible = shared.visible_LM.repeat_interleave(queries, dim=0)[None]
        memory = self.cross.keys_and_values(shared.states_BMD)
        found_BQD = self.cross(x_BLQD.flatten(1, 2), memory, visible)
        found: Tensor = found_BQD.view_as(x_BLQD)[places]
        return found


class EncoderDecoder(Generator):
    """A bidirectional encoder over the codes of a history and a causal decoder over the codes of its next item."""

    def __init__(self, config: GeneratorConfig, items: Items, low_precision: bool) -> None:
        super().__init__(config, items, low_precision)
        depth, dim = items.trie.depth, config.dim
        self.ages = nn.Parameter(torch.randn(config.max_history, dim) * 0.02)
        self.levels = nn.Parameter(torch.randn(depth, dim) * 0.02)
        self.steps = nn.Parameter(torch.randn(depth + 1, dim) * 0.02)
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.ModuleList(Block(dim, config.heads, config.dropout) for _ in range(config.layers))
        self.encoder_norm = nn.LayerNorm(dim)
        self.decoder = nn.ModuleList(
            DecoderBlock(dim, config.heads, config.dropout) for _ in range(config.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(dim)

    def own_contexts(self, batch: HistoryBatch, rows_P: Tensor, columns_P: Tensor) -> Context:
        columns = torch.arange(batch.items_BL.shape[1], device=rows_P.device)
        padding_PL = columns > columns_P[:, None]
        tokens_PLTD = self._code_tokens(batch.items_BL)[rows_P]
        # Positions count back from the latest item: what matters is how long ago something was.
        age_PL = (columns_P[:, None] - columns).clamp(min=0)
        tokens_PLTD = tokens_PLTD + F.embedding(age_PL, self.ages)[:, :, None, :] + self.levels
        memory_PMD = self.dropout(tokens_PLTD.flatten(1, 2))
        padding_PM = padding_PL.repeat_interleave(self.trie.depth, dim=1)
        mask = ~padding_PM[:, None, None, :]
        for block in self.encoder:
            memory_PMD = block(memory_PMD, mask)
        memory_PMD = self.encoder_norm(memory_PMD)
        weights_PM1 = (~padding_PM).to(memory_PMD.dtype)[:, :, None]
        vector_PD = (memory_PMD * weights_PM1).sum(1) / weights_PM1.sum(1).clamp(min=1)
        return Context(vector_PD, memory_PMD, padding_PM)

    def _code_tokens(self, items_BL: Tensor) -> Tensor:
        """One token a code of each item of a history, shape (B, L, depth, D)."""
        codes = self.trie.codes[items_BL]
        tokens = torch.stack(
            [F.embedding(codes[..., level], table) for level, table in enumerate(self.code_vectors)], dim=-2
        )
        if self.config.history == "codes_and_embedding":
            tokens = tokens + self.embed(F.embedding(items_BL, self.inputs_NE))[..., None, :]
        return tokens

    def growing(self, context: Context) -> NextHidden:
        """Each code of a beam goes through the decoder once, and the history's keys and values are made once."""
        if context.memory_PMD is None or context.padding_PM is None:
            return super().growing(context)
        blocks = cast("list[DecoderBlock]", list(self.decoder))
        memories = [block.cross.keys_and_values(context.memory_PMD) for block in blocks]
        visible = ~context.padding_PM[:, None, :]
        seen: list[KeysValues] = []

        def next_hidden(codes_PHl: Tensor, parents_PH: Tensor) -> Tensor:
            people, beams, level = codes_PHl.shape
            earlier: list[KeysValues | None] = [None] * len(blocks)
            if level:
                per_history = len(seen[0][0]) // max(people, 1)
                rows = (parents_PH + per_history * torch.arange(people, device=parents_PH.device)[:, None]).flatten()
                earlier = [(keys[rows], values[rows]) for keys, values in seen]
                state = F.embedding(codes_PHl[..., -1], self.code_vectors[level - 1])
            else:
                state = context.vector_PD[:, None].expand(-1, beams, -1)
            state = state + self.steps[level]
            seen.clear()
            for block, memory, known in zip(blocks, memories, earlier, strict=True):
                state, now = block.step(state, memory, visible, known)
                seen.append(now)
            out: Tensor = self.decoder_norm(state)
            return out

        return next_hidden

    def hidden(self, context: Context, codes_PHl: Tensor, *, summaries: bool = False) -> Tensor:
        _, beams, count = codes_PHl.shape
        start = context.vector_PD[:, None, None, :].expand(-1, beams, 1, -1)
        vectors = [F.embedding(codes_PHl[..., level], self.code_vectors[level]) for level in range(count)]
        state = torch.cat([start, torch.stack(vectors, dim=2)], dim=2) if count else start
        state = state + self.steps[: count + 1]
        if summaries and self.summary_tokens is not None:
            tokens_PHTD = self.summary_tokens.expand(len(state), beams, -1, -1)
            state = torch.cat([state, tokens_PHTD.to(state.dtype)], dim=2)
        for block in self.decoder:
            state = block(state, context)
        out: Tensor = self.decoder_norm(state)
        return out
