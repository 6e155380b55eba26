"""The encoder-decoder whose encoder looks back alone, so that one pass over a history trains on all its prefixes.

A token a code, as in `encoder_decoder`: the tokens of an item see each other and those of earlier items; a decoder
over the target's codes attends to their states. A bidirectional encoder reads a history anew for each of its targets,
this one once, which is what makes many trainings affordable. Knows codes and positions; knows nothing of users' ids or
text. Axes as in `base`; M tokens of a history.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import GeneratorConfig
from prorec_core.generation.base import Context, Items, SharedMemory
from prorec_core.generation.encoder_decoder import EncoderDecoder
from prorec_core.training.batching import HistoryBatch


class CausalEncoderDecoder(EncoderDecoder):
    """An encoder over the codes of a history that looks back alone, and a decoder over the codes of its next item."""

    every_position = True

    def __init__(self, config: GeneratorConfig, items: Items, low_precision: bool) -> None:
        super().__init__(config, items, low_precision)
        self.input_norm = nn.LayerNorm(config.dim)
        if not config.heads_from_codebooks:
            with torch.no_grad():
                # As a linear layer over the states of a layer norm has it.
                self.head_scale.fill_(math.sqrt(config.dim))

    def own_contexts(self, batch: HistoryBatch, rows_P: Tensor, columns_P: Tensor) -> Context:
        length, depth = batch.items_BL.shape[1], self.trie.depth
        columns_L = torch.arange(length, device=rows_P.device)
        visible_LM = (columns_L <= columns_L[:, None]).repeat_interleave(depth, dim=1)
        tokens_BLTD = self._code_tokens(batch.items_BL) + self.ages[:length, None] + self.levels
        memory_BMD = self.dropout(self.input_norm(tokens_BLTD)).flatten(1, 2)
        mask_MM = visible_LM.repeat_interleave(depth, dim=0)
        for block in self.encoder:
            memory_BMD = block(memory_BMD, mask_MM)
        memory_BMD = self.encoder_norm(memory_BMD)
        # The mean of what is visible, after every position at once.
        sums_BLD = memory_BMD.unflatten(1, (length, depth)).sum(2).float().cumsum(1)
        means_BLD = sums_BLD / (depth * (columns_L + 1))[:, None]
        vector_PD = means_BLD[rows_P, columns_P].to(memory_BMD.dtype) + F.embedding(columns_P, self.ages)
        if batch.targets_BL is not None:
            return Context(vector_PD, shared=SharedMemory(memory_BMD, rows_P, columns_P, visible_LM))
        return Context(vector_PD, memory_BMD[rows_P], ~visible_LM[columns_P])
