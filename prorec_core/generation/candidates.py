"""Recommendations of one generator: beams, a dense score of all items, and both fused.

The dense score is Stage I's where the generator carries that along, else that of its own distillation head.

Knows generators and histories; knows nothing of files, metrics or item ids. Axes: U users of a batch, C
candidates, K items of a list, N items, B beams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.data.sequences import IntArray, Sequences
from prorec_core.generation.allowed import Rules, by_rule
from prorec_core.generation.base import Context, Generator
from prorec_core.generation.beam import beam_search
from prorec_core.generation.similar import BESIDE_CANDIDATES, IsOpen, Near, found_beside
from prorec_core.metrics.top import latest_items, padded_histories
from prorec_core.progress import Progress, Report, silent
from prorec_core.sequential.base import mask_history
from prorec_core.training.batching import HistoryBatch, at_a_time, inference_batches

Floats = npt.NDArray[np.float32]
DenseScores = Callable[[Context, HistoryBatch], Tensor]
"""Dense logits of all items, float32, shape (U, N)."""
DENSE_CANDIDATES = 50
"""Items of the dense score that are looked at beside the beams, at least: what is chosen, measured and served ranks the
same candidates, as long as no longer list is asked for."""
OWN_CANDIDATES = 20
"""A user's latest different items that are looked at too, where what a user has may be recommended again: no search is
needed to know of them, and none may find them all."""
_TOKENS = 16_384
SEARCH_CELLS = 6_000_000
"""Cells of the largest table of a batch of search: users times beams times children."""
DENSE_CELLS = 1 << 24
"""Cells of a batch's dense scores, users times items: 64 MiB."""


@dataclass(frozen=True)
class Candidates:
    """The items worth ranking for each user, each with both of its log-probabilities.

    Attributes:
        items_UC: int32, -1 where there is none; first the beams, best first, then what only the dense score found, the
            user's own where these may be recommended, and what only the ranker found.
        generative_UC: log-probability of the item's codes, float32, -inf where there is no item.
        dense_UC: log-probability under the dense score, float32, -inf where there is no item.
        beams: how many of the columns are beams.
        beside: how many of the columns, the last ones, only the ranker found.
    """

    items_UC: IntArray
    generative_UC: Floats
    dense_UC: Floats
    beams: int
    beside: int = 0

    @property
    def found(self) -> slice:
        """The columns of what the models have found, and of the user's own."""
        return slice(self.items_UC.shape[1] - self.beside)

    @property
    def by_models_UC(self) -> npt.NDArray[np.bool_]:
        """Where there is one of those."""
        found: npt.NDArray[np.bool_] = self.items_UC >= 0
        found[:, self.found.stop :] = False
        return found

    def select(self, rows: npt.NDArray[np.integer]) -> Candidates:
        """Those of some rows, in the order named."""
        return Candidates(self.items_UC[rows], self.generative_UC[rows], self.dense_UC[rows], self.beams, self.beside)

    def generative(self, k: int) -> tuple[IntArray, Floats]:
        """Each user's best items by the generator's beams alone, and their log-probabilities, shape (U, k)."""
        return best_of(self.items_UC[:, : self.beams], self.generative_UC[:, : self.beams], k)

    def dense(self, k: int) -> tuple[IntArray, Floats]:
        """Each user's best items by the dense score alone."""
        return best_of(self.items_UC[:, self.found], self.dense_UC[:, self.found], k)

    def listed(self, k: int) -> tuple[IntArray, Floats]:
        """Each user's first items as they stand, and their dense scores: for lists that are in order already."""
        items, scores = self.items_UC[:, :k], self.dense_UC[:, :k]
        short = ((0, 0), (0, max(0, k - items.shape[1])))
        return np.pad(items, short, constant_values=-1), np.pad(scores, short, constant_values=-np.inf)

    def fused(self, weight: float | Floats, k: int) -> tuple[IntArray, Floats]:
        """Each user's best items by `log p_gen + λ · log p_dense`, λ the weight, or each user's own, shape (U,)."""
        weight_U1 = np.asarray(weight, np.float32).reshape(-1, 1)
        items_UC = self.items_UC[:, self.found]
        with np.errstate(invalid="ignore"):
            scores = self.generative_UC[:, self.found] + weight_U1 * self.dense_UC[:, self.found]
        return best_of(items_UC, np.where(items_UC >= 0, scores, -np.inf).astype(np.float32), k)


def best_of(items_UC: IntArray, scores_UC: Floats, k: int) -> tuple[IntArray, Floats]:
    """Each user's k candidates of highest score, lower indices first among equals; -1 and -inf where they end."""
    scores_UC = np.where(items_UC >= 0, scores_UC, -np.inf)
    order = np.lexsort((items_UC, -scores_UC), axis=1)[:, :k]
    scores = np.take_along_axis(scores_UC, order, 1).astype(np.float32)
    items = np.where(np.isfinite(scores), np.take_along_axis(items_UC, order, 1), -1).astype(np.int32)
    short = k - items.shape[1]
    if short > 0:
        items = np.pad(items, ((0, 0), (0, short)), constant_values=-1)
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
    return items, scores


@torch.no_grad()
def find_candidates(
    generator: Generator,
    histories: Sequences,
    beams: int,
    k: int,
    *,
    masked: bool = True,
    with_dense: bool = True,
    whole: DenseScores | None = None,
    rules: Rules | None = None,
    near: Near | None = None,
    report: Report = silent,
) -> Candidates:
    """Beam search for every user, joined with the dense score's top k, and unless `masked` with the user's own items.

    What else a ranker is to look at comes last.

    Args:
        generator: in evaluation mode.
        histories: each user's items; an empty history is read as item 0 alone.
        beams: beams of the search.
        k: items a list.
        masked: leave out what a user already has.
        with_dense: also look at the dense score, if there is one, and at the user's own items; else at beams alone.
        whole: what `dense_scores` gave for this generator; None: it is asked.
        rules: for each user the items that alone may be candidates.
        near: what a ranker knows by itself; where there is a dense score of all items, BESIDE_CANDIDATES are sought.
        report: told of every batch, in users.
    """
    device = generator.inputs_NE.device
    dense = with_dense and generator.has_dense_score
    whole = (whole or dense_scores(generator)) if dense else None
    own = with_dense and not masked
    width = beams + (min(k, generator.trie.n_items) if whole else 0) + (OWN_CANDIDATES if own else 0)
    more = BESIDE_CANDIDATES if near and whole else 0
    items = np.full((histories.n_users, width + more), -1, np.int32)
    generative, scores = (np.full(items.shape, -np.inf, np.float32) for _ in range(2))
    most = max(1, at_a_time(SEARCH_CELLS, device) // (beams * max(generator.trie.widest)))
    if whole:
        most = max(1, min(most, at_a_time(DENSE_CELLS, device) // generator.trie.n_items))
    done = 0
    tokens = at_a_time(_TOKENS, device)
    batches = inference_batches(histories, generator.config.max_history, tokens, most, device)
    for batch in batches:
        users = batch.users_B.cpu().numpy()
        context = last_context(generator, batch)
        forbidden = _forbidden(histories, users, device) if masked else None
        ruled = None if rules is None else [rules[user] for user in users]
        beam = _search(generator, context, len(users), beams, forbidden, ruled)
        latest = latest_items(histories.select(users), OWN_CANDIDATES) if own else None
        own_UH = (
            None if latest is None else _allowed(torch.from_numpy(latest).to(device), ruled, generator.item_offsets)
        )
        found: tuple[Tensor, ...] = beam
        if whole:
            logits_UN = whole(context, batch)
            seen = histories if masked else None
            beside = None if near is None else partial(found_beside, near, histories.select(users))
            found = _join_dense(generator, context, beam, logits_UN, batch, seen, ruled, k, own_UH, beside)
        else:
            if own_UH is not None:
                fresh_UH = _without(own_UH, beam[0])
                scores_UH = item_log_probabilities(generator, context, fresh_UH)
                found = torch.cat([beam[0], fresh_UH], 1), torch.cat([beam[1], scores_UH], 1)
            if dense:
                found = (*found, _summary_scores(generator, context, found[0]))
        for target, value in zip((items, generative, scores), found, strict=False):
            by_models = value.shape[1] - more
            target[users, :by_models] = value[:, :by_models].cpu().numpy()
            target[users, width:] = value[:, by_models:].cpu().numpy()
        done += len(users)
        report(Progress(done, histories.n_users, "user"))
    return Candidates(items, generative, scores, beams, more)


def last_context(generator: Generator, batch: HistoryBatch) -> Context:
    """What the whole histories of a batch tell."""
    rows = torch.arange(len(batch.users_B), device=batch.items_BL.device)
    return generator.contexts(batch, rows, (batch.lengths_B - 1).clamp(min=0))


def _forbidden(histories: Sequences, users: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(padded_histories(histories.select(users))).to(device)


def _allowed(items_UH: Tensor, rules: Rules | None, offsets_N: Tensor | None) -> Tensor:
    """Items of users but those that were withdrawn or that a user's rule leaves out, which become -1."""
    if offsets_N is not None:
        items_UH = items_UH.masked_fill(offsets_N[items_UH.clamp(min=0)] == -torch.inf, -1)
    for rule, rows in by_rule(rules, items_UH.device):
        own_RH = items_UH[rows]
        items_UH[rows] = own_RH.masked_fill(~rule.mask_N[own_RH.clamp(min=0)], -1)
    return items_UH


def _search(
    generator: Generator, context: Context, users: int, beams: int, forbidden: Tensor | None, rules: Rules | None
) -> tuple[Tensor, Tensor]:
    hidden = generator.growing(context)

    def score(level: int, nodes_UB: Tensor, codes_UBl: Tensor, parents_UB: Tensor) -> Tensor:
        return generator.child_log_probabilities(level, context, hidden(codes_UBl, parents_UB), nodes_UB)

    result = beam_search(score, generator.trie, users, beams, beams, forbidden, rules)
    return result.items_UK, result.log_probabilities_UK


def item_log_probabilities(generator: Generator, context: Context, items_UC: Tensor) -> Tensor:
    """Log-probability of the codes of given items, float32, shape (U, C); -1 stands for no item and gets -inf."""
    items = items_UC.clamp(min=0)
    total = torch.zeros(items.shape, device=items.device)
    for log_p in item_step_log_probabilities(generator, context, items):
        total += log_p
    return total.masked_fill(items_UC < 0, -torch.inf)


def item_step_log_probabilities(generator: Generator, context: Context, items_UC: Tensor) -> Iterator[Tensor]:
    """Log-probability of each code of given items after those before it, a level at a time, float32, shape (U, C)."""
    trie, hidden = generator.trie, generator.growing(context)
    at_UC = torch.arange(items_UC.shape[1], device=items_UC.device).expand_as(items_UC)
    for level in range(trie.depth):
        # The first parent of all is the root: it is asked once a user.
        asked_UH = items_UC if level else items_UC[:, :1]
        from_UH = at_UC if level > 1 else torch.zeros_like(asked_UH)
        parents = trie.item_nodes(level, asked_UH)
        states_UHD = hidden(trie.codes[asked_UH][..., :level], from_UH)
        log_p = generator.child_log_probabilities(level, context, states_UHD, parents)
        slot = trie.item_nodes(level + 1, items_UC) - trie.first_child[level][parents]
        yield log_p.expand(*items_UC.shape, -1).gather(-1, slot[..., None])[..., 0]


def _join_dense(
    generator: Generator,
    context: Context,
    found: tuple[Tensor, Tensor],
    logits_UN: Tensor,
    batch: HistoryBatch,
    masked: Sequences | None,
    rules: Rules | None,
    k: int,
    own_UH: Tensor | None,
    beside: Callable[[int, npt.NDArray[np.integer], IsOpen], IntArray] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    beams_UB, beam_scores_UB = found
    log_p_UN = logits_UN.log_softmax(-1)
    if masked is not None:
        # In place: nothing that was masked is asked for again, and a copy would be as large as the catalogue.
        mask_history(log_p_UN, batch, masked)
    for rule, rows in by_rule(rules, log_p_UN.device):
        # A row by itself is a view: nothing as long as the catalogue is copied.
        parts = [log_p_UN] if len(rows) == len(log_p_UN) else [log_p_UN[row] for row in rows.tolist()]
        blocked_N = ~rule.mask_N
        for part in parts:
            part.masked_fill_(blocked_N, -torch.inf)
    top_UK = log_p_UN.topk(min(k, log_p_UN.shape[1]), dim=1)
    fresh_UK = top_UK.indices.masked_fill(top_UK.values == -torch.inf, -1)
    fresh_UK = _without(fresh_UK, beams_UB)
    # What the beams have found already goes to the end, where the whole batch can do without those columns.
    fresh_UK = fresh_UK.gather(1, (fresh_UK < 0).to(torch.int8).argsort(dim=1, stable=True))
    fresh_UK = fresh_UK[:, : max(1, int((fresh_UK >= 0).sum(1).max()))]
    if own_UH is not None:
        fresh_UK = torch.cat([fresh_UK, _without(_without(own_UH, beams_UB), fresh_UK)], 1)
    if beside is not None:

        def is_open(rows: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
            """What a history or a rule leaves out has no probability."""
            places = (torch.from_numpy(each).to(log_p_UN.device) for each in (rows, items))
            found: npt.NDArray[np.bool_] = (log_p_UN[tuple(places)] > -torch.inf).cpu().numpy()
            return found

        taken = torch.cat([beams_UB, fresh_UK], 1).cpu().numpy()
        beside_UJ = torch.from_numpy(beside(log_p_UN.shape[1], taken, is_open)).to(fresh_UK)
        fresh_UK = torch.cat([fresh_UK, beside_UJ], 1)
    items_UC = torch.cat([beams_UB, fresh_UK], 1)
    generative_UC = torch.cat([beam_scores_UB, item_log_probabilities(generator, context, fresh_UK)], 1)
    dense_UC = log_p_UN.gather(1, items_UC.clamp(min=0)).masked_fill(items_UC < 0, -torch.inf)
    return items_UC, generative_UC, dense_UC


def _without(items_UK: Tensor, others_UJ: Tensor) -> Tensor:
    """Items that are not among the others of the user, -1 in place of those that are."""
    return items_UK.masked_fill((items_UK[:, :, None] == others_UJ[:, None, :]).any(-1), -1)


def dense_scores(generator: Generator) -> DenseScores | None:
    """The dense score, with what no history decides made once; None if it can only be had item by item.

    The generator's weights and offsets are those of now.
    """
    if generator.stage_one is not None:
        scores, offsets_N = generator.stage_one.scorer(generator.embeddings_NE), generator.item_offsets
        return lambda _, batch: scores(batch) if offsets_N is None else scores(batch) + offsets_N
    if generator.config.distill.at == "context":
        return lambda context, _: dense_logits(generator, context)
    return None


def dense_logits(generator: Generator, context: Context) -> Tensor:
    """Logits of all items by the distillation head (the mean over teachers), float32, shape (U, N)."""
    queries = generator.dense_queries_of([context.vector_PD] * len(generator.teacher_names))
    parts = [query.float() @ generator.teacher(name).t() for name, query in queries.items()]
    logits_UN = torch.stack(parts).mean(0) / generator.config.distill.temperature
    return logits_UN if generator.item_offsets is None else logits_UN + generator.item_offsets


def _summary_scores(generator: Generator, context: Context, items_UB: Tensor) -> Tensor:
    """Log-probabilities among the beams by the tokens after the last code, float32, shape (U, B)."""
    items = items_UB.clamp(min=0)
    states_UBTD = generator.hidden(context, generator.trie.codes[items], summaries=True)
    queries = generator.dense_queries_of(states_UBTD[:, :, -len(generator.teacher_names) :].unbind(2))
    parts = [(query * F.embedding(items, generator.teacher(name))).sum(-1) for name, query in queries.items()]
    logits = torch.stack(parts).mean(0) / generator.config.distill.temperature
    if generator.item_offsets is not None:
        logits = logits + generator.item_offsets[items]
    return logits.masked_fill(items_UB < 0, -torch.inf).log_softmax(-1)
