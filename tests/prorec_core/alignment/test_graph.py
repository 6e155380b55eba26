from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from prorec_core.alignment.graph import ItemGraph
from prorec_core.data.sequences import from_lists

N_ITEMS = 7


@given(st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=8), min_size=1, max_size=6), st.integers(1, 9))
def test_neighbours_are_added_by_their_normalised_counts(histories: list[list[int]], window: int) -> None:
    counts = np.zeros((N_ITEMS, N_ITEMS))
    for history in histories:
        for (place, first), (later, second) in combinations(enumerate(history), 2):
            if first != second and later - place <= window:
                counts[first, second] += 0.9 ** (later - place - 1)
                counts[second, first] += 0.9 ** (later - place - 1)
    degree = np.maximum(counts.sum(1), 1)
    ties = torch.from_numpy(counts / np.sqrt(degree[:, None] * degree[None, :])).float()
    graph = ItemGraph(from_lists([np.array(history, np.int32) for history in histories], N_ITEMS), 0.5, None, window)
    vectors, upstream = torch.randn(2, N_ITEMS, 5)
    vectors.requires_grad_(True)
    out = graph(vectors)
    torch.testing.assert_close(out, vectors + 0.5 * ties @ vectors)
    alone = torch.from_numpy(counts.sum(1) == 0)
    assert torch.equal(out[alone], vectors[alone])
    (found,) = torch.autograd.grad(out, vectors, upstream)
    torch.testing.assert_close(found, upstream + 0.5 * ties @ upstream)
