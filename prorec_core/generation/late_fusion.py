"""Two generators over two code tables of one catalogue, joined only at the end (the idea of EAGER, Wang et al. 2024).

Knows generators and histories; knows nothing of files or metrics. Each generator searches by itself; both then
judge the union of what they found. Axes: U users of a batch, C candidates, B beams.
"""

from __future__ import annotations

import numpy as np
import torch

from prorec_core.data.sequences import Sequences
from prorec_core.errors import UserError
from prorec_core.generation.base import Generator
from prorec_core.generation.candidates import (
    OWN_CANDIDATES,
    Candidates,
    find_candidates,
    item_log_probabilities,
    last_context,
)
from prorec_core.generation.similar import BESIDE_CANDIDATES, Near, found_beside
from prorec_core.metrics.top import latest_items, padded_histories
from prorec_core.progress import Progress, Report, silent
from prorec_core.training.batching import at_a_time, inference_batches

_TOKENS = 16_384
_CELLS = 6_000_000
"""Cells of the largest table of a batch: users times candidates times children."""


@torch.no_grad()
def joint_candidates(
    first: Generator,
    second: Generator,
    histories: Sequences,
    beams: int,
    *,
    masked: bool = True,
    near: Near | None = None,
    report: Report = silent,
) -> Candidates:
    """The union of both generators' beams, each item with its log-probability under either of them.

    Args:
        first: in evaluation mode.
        second: in evaluation mode; reads histories as long as the first does.
        histories: each user's items.
        beams: beams of each search.
        masked: leave out what a user already has; else the user's own latest items are among the candidates.
        near: what a ranker of both knows by itself.
        report: told of every batch of both searches, and of asking both about what either has found, in users.

    Returns:
        Candidates whose `generative_UC` is the first generator's log-probability and whose `dense_UC` is the
        second's, so that `fused(λ)` ranks by `log p_first + λ · log p_second`.

    Raises:
        UserError: the generators read histories of different lengths.
    """
    longest = first.config.max_history
    if second.config.max_history != longest:
        raise UserError(
            f"histories of {longest} and {second.config.max_history} items cannot be read together",
            place="two_stream",
            cure="Give both streams one generator.max_history",
        )
    of_first, of_second = (
        find_candidates(each, histories, beams, beams, masked=masked, with_dense=False, report=report)
        for each in (first, second)
    )
    own, more = 0 if masked else OWN_CANDIDATES, BESIDE_CANDIDATES if near else 0
    items_UC = np.full((histories.n_users, 2 * beams + own + more), -1, np.int32)
    log_p = [np.full(items_UC.shape, -np.inf, np.float32) for _ in range(2)]
    columns = np.arange(items_UC.shape[1])  # first what the first has found, then what the second has
    device = first.inputs_NE.device
    children = max(width for each in (first, second) for width in each.trie.widest)
    users_a_batch = max(1, at_a_time(_CELLS, device) // (items_UC.shape[1] * children))
    done = 0
    for batch in inference_batches(histories, longest, at_a_time(_TOKENS, device), users_a_batch, device):
        users = batch.users_B.cpu().numpy()
        known = (of_second.items_UC[users][:, :, None] == of_first.items_UC[users][:, None, :]).any(-1)
        mine = np.hstack([of_first.items_UC[users], np.where(known, -1, of_second.items_UC[users])])
        items_UC[users, : 2 * beams] = mine
        if own:
            latest = latest_items(histories.select(users), own)
            found = (latest[:, :, None] == items_UC[users][:, None, :]).any(-1)
            items_UC[users, 2 * beams : 2 * beams + latest.shape[1]] = np.where(found, -1, latest)
        if near:
            some = histories.select(users)
            taken = np.hstack([items_UC[users], *([padded_histories(some)] if masked else ())])
            items_UC[users, -more:] = found_beside(near, some, first.trie.n_items, taken)
        # What a search has found it has a number for; each is asked about everything else.
        for place, (generator, searched) in enumerate(((first, of_first), (second, of_second))):
            own_C = columns // beams == place
            asked = torch.from_numpy(items_UC[users][:, ~own_C].astype(np.int64)).to(device)
            scores = item_log_probabilities(generator, last_context(generator, batch), asked)
            log_p[place][np.ix_(users, ~own_C)] = scores.cpu().numpy()
            there = items_UC[users][:, own_C] >= 0
            log_p[place][np.ix_(users, own_C)] = np.where(there, searched.generative_UC[users], -np.inf)
        done += len(users)
        report(Progress(done, histories.n_users, "user"))
    return Candidates(items_UC, log_p[0], log_p[1], items_UC.shape[1] - more, more)
