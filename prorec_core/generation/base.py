"""What every generator offers, and the logits of codes over the trie that all of them share.

Knows codes, the trie and frozen item embeddings; knows nothing of users' ids, text or training.
Axes: B users of a batch, L positions, P contexts (one a target), H beams, l codes chosen so far, T teachers, D
dimensions of the model, E dimensions of the frozen item embedding, C children of a node, K codes of a level, N items.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prorec_core.config import GeneratorConfig
from prorec_core.generation.trie import WHOLE_TABLES, CodeTrie
from prorec_core.sequential.base import SequentialModel
from prorec_core.training.batching import HistoryBatch

_GATHERED = 48
"""What a product costs whose node is looked up, in products with nodes as they come; 30 to 70 on a CPU."""
_ROWS, _MANY_ROWS = 2048, 1 << 20
"""Nodes that are looked up at a time: what is made of them stays in a processor's cache; on a card each time costs."""
_SCORES = 1 << 27
"""Cells of a table of all nodes of a level, at most: queries times nodes."""


@dataclass(frozen=True)
class Items:
    """What a generator knows of the catalogue, all of it frozen.

    Attributes:
        trie: the codes of all items.
        embeddings_NE: the embedding that was quantized, float32.
        teachers: the embeddings to distil from, by name, float32, shape (N, ·) each.
        codebooks: mean embedding of each code of a level, shape (K, E), None for a level that has none.
        since_N: when each item came, int64 (see `CodeTrie.node_means`); None: all with the training.
    """

    trie: CodeTrie
    embeddings_NE: Tensor
    teachers: Mapping[str, Tensor]
    codebooks: list[Tensor | None]
    since_N: Tensor | None = None

    @property
    def code_counts(self) -> list[int]:
        """Codes K of each level."""
        return [int(self.trie.codes[:, level].max()) + 1 for level in range(self.trie.depth)]


@dataclass(frozen=True)
class SharedMemory:
    """States of the tokens of B histories, each seen by the targets of that history alone.

    Attributes:
        states_BMD: of M tokens of each history.
        rows_P: the history of each target, int64.
        columns_P: the position in it after which each target comes, int64; no two targets have both alike.
        visible_LM: what a target after each of L positions sees of a history's tokens, bool.
    """

    states_BMD: Tensor
    rows_P: Tensor
    columns_P: Tensor
    visible_LM: Tensor


@dataclass(frozen=True)
class Context:
    """What a history tells, for P targets.

    Attributes:
        vector_PD: one vector a target.
        memory_PMD: states of the history's tokens, for decoders that attend to them.
        padding_PM: true where the memory holds nothing.
        shared: the same where targets share a history.
    """

    vector_PD: Tensor
    memory_PMD: Tensor | None = None
    padding_PM: Tensor | None = None
    shared: SharedMemory | None = None


NextHidden = Callable[[Tensor, Tensor], Tensor]
"""Gives the decoder's states before the next code; see `Generator.growing`."""


@dataclass(frozen=True)
class LevelScores:
    """What P contexts and their decoder states say of the nodes of one level.

    Attributes:
        codes_PHK: logits of all codes of the level, float32.
        query_PE: direction to compare nodes' embeddings with, over the temperature, float32; None without node scores.
    """

    codes_PHK: Tensor
    query_PE: Tensor | None = None

    def chunks(self, count: int) -> list[LevelScores]:
        """The same for the contexts in at most `count` groups of equal size, in their order."""
        codes = self.codes_PHK.chunk(count)
        queries = [None] * len(codes) if self.query_PE is None else self.query_PE.chunk(count)
        return [LevelScores(*pair) for pair in zip(codes, queries, strict=True)]


class Generator(nn.Module, ABC):
    """Gives the probabilities of an item's codes, level by level, after a history.

    A code's logit is the product of the decoder's hidden state with the code's head; with node scores, the score
    of the node is added that the code leads to, `⟨q_l, mean of the normalised embeddings below⟩ / τ`, with a
    query q_l of its own a level.
    """

    every_position: ClassVar[bool] = False
    """Whether one pass over a history gives the contexts of all its positions, so that all of them are trained on."""

    def __init__(self, config: GeneratorConfig, items: Items, low_precision: bool) -> None:
        super().__init__()
        self.config = config
        self.trie = items.trie
        self.low_precision = low_precision
        depth, dim, width = items.trie.depth, config.dim, items.embeddings_NE.shape[1]
        self.code_vectors = nn.ParameterList(nn.Parameter(torch.randn(k, dim) * 0.02) for k in items.code_counts)
        self.heads = nn.ParameterList(nn.Parameter(torch.randn(k, dim) * 0.02) for k in items.code_counts)
        self.head_norm = nn.LayerNorm(dim)
        self.head_scale = nn.Parameter(torch.full((depth,), 1.0))
        self.embed = nn.Linear(width, dim)
        self.node_queries = nn.ModuleList(nn.Linear(dim, width) for _ in range(depth if config.node_scores else 0))
        self.dense_queries = nn.ModuleDict(
            {name: nn.Linear(dim, teacher.shape[1]) for name, teacher in items.teachers.items()}
        )
        self.stage_one: SequentialModel | None = None
        self.state: nn.Linear | None = None
        self.summary_tokens: nn.Parameter | None = None
        if config.distill.at == "summary" and items.teachers:
            self.summary_tokens = nn.Parameter(torch.randn(len(items.teachers), dim) * 0.02)
        normal_NE = F.normalize(items.embeddings_NE, dim=-1)
        # As Stage I reads item vectors: their direction, at unit variance.
        self.inputs_NE = _frozen(self, "inputs_NE", normal_NE * math.sqrt(width))
        self.embeddings_NE = _frozen(self, "embeddings_NE", items.embeddings_NE)
        for level in range(len(self.node_queries)):
            _frozen(self, f"nodes_{level}", items.trie.node_means(level + 1, normal_NE, items.since_N))
        self.teacher_names = list(items.teachers)
        for name, teacher in items.teachers.items():
            _frozen(self, f"teacher_{name}", F.normalize(teacher, dim=-1))
        self.item_offsets: Tensor | None = None
        self.node_offsets: list[Tensor] = []
        # Where all codes of a level compete, those that came later have no share in the normaliser of the others.
        self.competing: list[int] | None = None
        if items.since_N is not None:
            first = items.trie.codes[items.since_N == items.since_N.min()]
            self.competing = (first.amax(0) + 1).tolist()
        if config.stage_one_state:
            self.state = nn.Linear(width, dim)
            if width == dim:
                # Heads that start from the codebooks then rank by it from the first step on.
                nn.init.eye_(self.state.weight)
                nn.init.zeros_(self.state.bias)
        self._start_codes(items)

    def offset_items(self, offsets_N: Tensor) -> None:
        """From now on add an offset to each item's score, in nats, in the scores of codes and in the dense ones.

        A node's offset is `log mean exp` of those of the items below it, what a softmax over equally likely items
        would make of them; each code's logit gets the difference between its node's and its parent's, so that the
        offsets along an item's path add up to its own, less the root's. An item with an offset of minus infinity is as
        good as not there: nothing leads to it, and it has no share in any normaliser.

        Args:
            offsets_N: float32, on the device of the generator and of its trie, as they stand then.
        """
        trie, exact_N, there_N = self.trie, offsets_N.double().exp(), (offsets_N > -torch.inf).double()
        sizes = [trie.node_sums(level, there_N) for level in range(trie.depth + 1)]
        by_level = [(trie.node_sums(level, exact_N) / size.clamp(min=1)).log() for level, size in enumerate(sizes)]
        self.node_offsets = []
        for level in range(trie.depth):
            parents = trie.item_nodes(level)[trie.leaf_item[trie.first_leaf[level + 1]]]
            differences = (by_level[level + 1] - by_level[level][parents]).float()
            self.node_offsets.append(differences.masked_fill(sizes[level + 1] == 0, -torch.inf))
        self.item_offsets = offsets_N
        if not there_N.all():
            self.trie = trie.closing(there_N == 0)

    def _start_codes(self, items: Items) -> None:
        """Start heads, and for histories of codes alone the code vectors too, from the codebooks."""
        if not self.config.heads_from_codebooks or items.embeddings_NE.shape[1] != self.config.dim:
            return
        norm = items.embeddings_NE.norm(dim=-1).mean()
        with torch.no_grad():
            for level, codebook in enumerate(items.codebooks):
                if codebook is None:
                    continue
                rows = codebook[: len(self.heads[level])]
                self.heads[level][: len(rows)] = rows / norm
                if self.config.history == "codes":
                    self.code_vectors[level][: len(rows)] = rows
            self.head_scale.fill_(1 / self.config.node_temperature)

    @property
    def directions(self) -> Callable[[HistoryBatch, Tensor, Tensor], Tensor] | None:
        """`SequentialModel.directions` of Stage I's model over the items of this generator; None without one."""
        return None if self.stage_one is None else self.stage_one.directions(self.embeddings_NE)

    def attach_stage_one(self, stage_one: SequentialModel) -> None:
        """Carry Stage I's model along, frozen: its score of all items is the dense one from now on."""
        self.stage_one = stage_one.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but for Stage I, which is never trained here and teaches as it recommends."""
        super().train(mode)
        if self.stage_one is not None:
            self.stage_one.eval()
        return self

    def warm_start(self, stage_one: SequentialModel) -> list[nn.Parameter]:
        """Start as Stage I's model where that fits; returns the parameters that now start warm, here none."""
        return []

    @property
    def has_dense_score(self) -> bool:
        """Whether there is a dense score beside the codes' probabilities."""
        return self.stage_one is not None or len(self.dense_queries) > 0

    @property
    def siblings_compete(self) -> bool:
        """Whether a code's probability is one among its node's children; else it is one among all of its level."""
        return self.config.trie_mask or self.config.node_scores

    def contexts(self, batch: HistoryBatch, rows_P: Tensor, columns_P: Tensor) -> Context:
        """What the histories tell after position `columns_P` of row `rows_P` (int64), and Stage I of them, if asked."""
        context = self.own_contexts(batch, rows_P, columns_P)
        if self.state is None or self.directions is None:
            return context
        with torch.no_grad():
            said_PE = F.normalize(self.directions(batch, rows_P, columns_P).float(), dim=-1)
        return replace(context, vector_PD=context.vector_PD + self.state(said_PE * math.sqrt(said_PE.shape[-1])))

    @abstractmethod
    def own_contexts(self, batch: HistoryBatch, rows_P: Tensor, columns_P: Tensor) -> Context:
        """What the histories tell after these positions, read by the generator alone."""

    @abstractmethod
    def hidden(self, context: Context, codes_PHl: Tensor, *, summaries: bool = False) -> Tensor:
        """Decoder states before each code and after the last one given, shape (P, H, l + 1, D).

        With `summaries` the states of the summary tokens, one a teacher, come after them: (P, H, l + 1 + T, D).
        """

    def hidden_of(self, context: Context, codes_Pl: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        """Decoder states before the codes of each level, for those contexts alone that `rows` names for the level.

        Args:
            context: of P targets.
            codes_Pl: codes of the targets, int64.
            rows: for each level the indices of W contexts, int64.

        Returns:
            For each level shape (W, D).
        """
        states_PLD = self.hidden(context, codes_Pl[:, None, : len(rows) - 1])[:, 0]
        return [states_PLD[rows_W, level] for level, rows_W in enumerate(rows)]

    def next_hidden(self, context: Context, codes_PHl: Tensor) -> Tensor:
        """The decoder state before the next code alone, shape (P, H, D)."""
        return self.hidden(context, codes_PHl)[:, :, -1]

    def growing(self, context: Context) -> NextHidden:
        """`next_hidden` of beams that grow by a code at a time from none, for P contexts.

        To be called level by level: with the codes so far (P, H, l), and, int64 (P, H), the beam of the call before
        that each goes on from.
        """
        return lambda codes_PHl, _: self.next_hidden(context, codes_PHl)

    def item_tokens(self, items: Tensor) -> Tensor:
        """Input vectors of items of a history: the sum of their codes' vectors, and the frozen embedding."""
        codes = self.trie.codes[items]
        token = sum(F.embedding(codes[..., level], table) for level, table in enumerate(self.code_vectors))
        assert isinstance(token, Tensor)
        if self.config.history == "codes_and_embedding":
            token = token + self.embed(F.embedding(items, self.inputs_NE))
        return token

    def code_logits(self, level: int, hidden: Tensor) -> Tensor:
        """Logits of all codes of a level, shape (…, K), from states of shape (…, D)."""
        scale = self.head_scale[level]
        logits: Tensor = (F.normalize(self.head_norm(hidden), dim=-1) * scale) @ self.heads[level].t().to(hidden.dtype)
        return logits

    def level_scores(self, level: int, vector_PD: Tensor, hidden_PHD: Tensor) -> LevelScores:
        """What the scores of a level's nodes are put together from: all that does not depend on which nodes."""
        logits_PHK = self.code_logits(level, hidden_PHD).float()
        if not self.config.node_scores:
            return LevelScores(logits_PHK)
        query_PE = F.normalize(self.node_queries[level](vector_PD).float(), dim=-1)
        return LevelScores(logits_PHK, query_PE / self.config.node_temperature)

    def child_logits(self, level: int, scores: LevelScores, children_PHC: Tensor) -> Tensor:
        """Logits of nodes of level `level + 1`, float32, shape (P, H, C); where a node is -1 they mean nothing."""
        nodes_PHC = children_PHC.clamp(min=0)
        logits_PHC = scores.codes_PHK.gather(-1, self.trie.node_code[level + 1][nodes_PHC])
        if scores.query_PE is not None:
            products = _products(scores.query_PE, getattr(self, f"nodes_{level}"), nodes_PHC, children_PHC >= 0)
            logits_PHC = logits_PHC + products
        if self.node_offsets:
            logits_PHC = logits_PHC + self.node_offsets[level][nodes_PHC]
        return logits_PHC

    def child_log_probabilities(self, level: int, context: Context, hidden_PHD: Tensor, nodes_PH: Tensor) -> Tensor:
        """Log-probabilities of the children of some nodes, float32, shape (P, H, C), for beam search.

        Normalised over the children where training was; otherwise over all codes of the level.

        Args:
            level: that of the nodes.
            context: of P targets.
            hidden_PHD: the decoder's states before the children's code, as `next_hidden` gives them.
            nodes_PH: int64.
        """
        children_PHC = self.trie.children_of(level, nodes_PH)
        scores = self.level_scores(level, context.vector_PD, hidden_PHD.float())
        logits_PHC = self.child_logits(level, scores, children_PHC)
        if self.siblings_compete:
            return logits_PHC.masked_fill(children_PHC < 0, -torch.inf).log_softmax(-1)
        competing = None if self.competing is None else self.competing[level]
        return logits_PHC - scores.codes_PHK[..., :competing].logsumexp(-1, keepdim=True)

    def dense_queries_of(self, states: Sequence[Tensor]) -> dict[str, Tensor]:
        """Normalised queries into each teacher's space, float32, from a state a teacher, in the teachers' order."""
        pairs = zip(self.dense_queries.items(), states, strict=True)
        return {name: F.normalize(query(state).float(), dim=-1) for (name, query), state in pairs}

    def teacher(self, name: str) -> Tensor:
        """A teacher's normalised embeddings, float32, shape (N, ·)."""
        found: Tensor = getattr(self, f"teacher_{name}")
        return found


def _products(query_PE: Tensor, nodes_ME: Tensor, wanted_PHC: Tensor, real_PHC: Tensor) -> Tensor:
    """Products of each query with the nodes wanted of it, float32, shape (P, H, C); any number where none is real.

    Either of the nodes wanted alone, or of all nodes and then those wanted, whichever is less work.
    """
    people, beams, width = wanted_PHC.shape
    if beams == 1 and 2 * width < len(nodes_ME):
        # Not as a batched product: oneDNN makes a program for every new shape, and here each is new.
        return (F.embedding(wanted_PHC, nodes_ME) * query_PE[:, None, None, :]).sum(-1)
    if len(nodes_ME) > WHOLE_TABLES:
        places = real_PHC.nonzero(as_tuple=True)
        if _GATHERED * len(places[0]) < people * len(nodes_ME):
            rows = _MANY_ROWS if query_PE.device.type == "cuda" else _ROWS
            asked = zip(places[0].split(rows), wanted_PHC[places].split(rows), strict=True)
            parts = [(F.embedding(query, query_PE) * F.embedding(nodes, nodes_ME)).sum(-1) for query, nodes in asked]
            return query_PE.new_zeros(wanted_PHC.shape).index_put(places, torch.cat(parts))
    at_once = max(1, _SCORES // len(nodes_ME))
    parts = [
        (query @ nodes_ME.t()).float().gather(1, wanted.flatten(1)).view(wanted.shape)
        for query, wanted in zip(query_PE.split(at_once), wanted_PHC.split(at_once), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _frozen(module: nn.Module, name: str, tensor: Tensor) -> Tensor:
    module.register_buffer(name, tensor, persistent=False)
    return tensor
