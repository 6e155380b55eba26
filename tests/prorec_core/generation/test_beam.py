from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prorec_core.generation.beam import beam_search
from prorec_core.generation.trie import CodeTrie
from tests.steps import waits

Codes = npt.NDArray[np.uint16]


def all_children(trie: CodeTrie) -> list[Tensor]:
    """At each level the children of all nodes, shape (n_nodes, C)."""
    return [trie.children_of(level, torch.arange(nodes)) for level, nodes in enumerate(trie.n_nodes[:-1])]


class FixedGenerator:
    """A generator whose users each have a fixed distribution over the children of every node."""

    def __init__(self, trie: CodeTrie, logits: list[Tensor]) -> None:
        """`logits[level]`: shape (users, n_nodes[level], C)."""
        self.trie = trie
        self.tables = [
            values.masked_fill(children < 0, -torch.inf).log_softmax(-1)
            for values, children in zip(logits, all_children(trie), strict=True)
        ]

    @classmethod
    def random(cls, trie: CodeTrie, users: int, seed: int) -> FixedGenerator:
        generator = torch.Generator().manual_seed(seed)
        shapes = [(users, *children.shape) for children in all_children(trie)]
        return cls(trie, [torch.randn(shape, generator=generator) * 2 for shape in shapes])

    def __call__(self, level: int, nodes_UB: Tensor, codes_UBl: Tensor, parents_UB: Tensor) -> Tensor:
        assert codes_UBl.shape == (*nodes_UB.shape, level)
        # What a beam goes on from is a beam of the level before.
        self.before_UBl = codes_UBl[..., :0] if level == 0 else self.before_UBl
        whence = parents_UB[..., None].expand(-1, -1, max(level - 1, 0))
        assert torch.equal(self.before_UBl.gather(1, whence), codes_UBl[..., : max(level - 1, 0)])
        self.before_UBl = codes_UBl
        users = torch.arange(len(nodes_UB)).unsqueeze(-1)
        # A real model may answer anything for children that do not exist.
        answer = self.tables[level][users, nodes_UB]
        return answer.masked_fill(self.trie.children_of(level, nodes_UB) < 0, torch.nan)

    def item_scores(self, users: int) -> Tensor:
        """Exact log-probability of every item, shape (users, N)."""
        total = torch.zeros((users, self.trie.n_items))
        for level in range(self.trie.depth):
            parent, child = self.trie.item_nodes(level), self.trie.item_nodes(level + 1)
            total += self.tables[level][:, parent, child - self.trie.first_child[level][parent]]
        return total


@st.composite
def code_tables(draw: st.DrawFn) -> Codes:
    depth, codes = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    row = st.tuples(*[st.integers(0, codes - 1)] * depth)
    rows = draw(st.lists(row, min_size=1, max_size=40, unique=True))
    return np.array(rows, dtype=np.uint16)


@given(code_tables(), st.integers(1, 50), st.integers(0, 2**31))
@settings(max_examples=80)
def test_with_the_whole_catalogue_as_beam_the_search_is_exact(codes: Codes, keep: int, seed: int) -> None:
    trie = CodeTrie.from_codes(codes)
    generator = FixedGenerator.random(trie, 3, seed)
    result = beam_search(generator, trie, 3, beams=len(codes), keep=keep)
    assert result.items_UK.shape == result.log_probabilities_UK.shape == (3, keep)
    scores, items = generator.item_scores(3).sort(descending=True)
    found = min(keep, len(codes))
    torch.testing.assert_close(result.log_probabilities_UK[:, :found], scores[:, :found])
    assert torch.equal(result.items_UK[:, :found], items[:, :found])
    assert (result.items_UK[:, found:] == -1).all()
    assert (result.log_probabilities_UK[:, found:] == -torch.inf).all()


@given(code_tables(), st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**31), st.data())
@settings(max_examples=80)
def test_narrow_beams_name_distinct_existing_allowed_items(
    codes: Codes, beams: int, keep: int, seed: int, data: st.DataObject
) -> None:
    trie = CodeTrie.from_codes(codes)
    generator = FixedGenerator.random(trie, 2, seed)
    width = data.draw(st.integers(0, 8))
    rows = st.lists(st.integers(-1, len(codes) - 1), min_size=width, max_size=width)
    forbidden = torch.tensor([data.draw(rows), data.draw(rows)], dtype=torch.int64).reshape(2, width)
    result = beam_search(generator, trie, 2, beams, keep, forbidden)
    exact = generator.item_scores(2)
    for user in range(2):
        items = result.items_UK[user]
        real = items[items >= 0].tolist()
        scores = result.log_probabilities_UK[user]
        assert len(set(real)) == len(real)
        assert not set(real) & set(forbidden[user].tolist())
        assert (items[: len(real)] >= 0).all() and (items[len(real) :] == -1).all()
        torch.testing.assert_close(scores[: len(real)], exact[user, real])
        assert (scores[: len(real)].diff() <= 0).all()
        assert len(real) >= min(beams, keep, len(codes) - len(set(forbidden[user].tolist()) - {-1}))


@given(code_tables(), st.integers(0, 2**31), st.data())
@settings(max_examples=60)
def test_forbidding_takes_items_out_of_the_exact_order(codes: Codes, seed: int, data: st.DataObject) -> None:
    trie = CodeTrie.from_codes(codes)
    generator = FixedGenerator.random(trie, 1, seed)
    forbidden = data.draw(st.lists(st.integers(0, len(codes) - 1), max_size=6))
    result = beam_search(generator, trie, 1, len(codes), len(codes), torch.tensor([[*forbidden, -1]]))
    order = generator.item_scores(1)[0].argsort(descending=True).tolist()
    expected = [item for item in order if item not in forbidden]
    assert result.items_UK[0].tolist() == expected + [-1] * (len(codes) - len(expected))


def test_known_probabilities_give_the_known_answer() -> None:
    """Greedy search follows code 0 (.6) to items of .3 each; the best item lies below code 1 (.4 * .9)."""
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.uint16)
    trie = CodeTrie.from_codes(codes)
    generator = FixedGenerator(
        trie, [torch.tensor([[[0.6, 0.4]]]).log(), torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]).log()]
    )
    wide = beam_search(generator, trie, 1, beams=2, keep=3)
    assert wide.items_UK.tolist() == [[2, 0, 1]]
    torch.testing.assert_close(wide.log_probabilities_UK.exp(), torch.tensor([[0.36, 0.3, 0.3]]))
    greedy = beam_search(generator, trie, 1, beams=1, keep=3)
    assert greedy.items_UK.tolist() == [[0, 1, -1]]


def test_equal_probabilities_fall_to_the_lower_codes() -> None:
    codes = np.array([[a, b] for a in reversed(range(8)) for b in range(9)], dtype=np.uint16)
    trie = CodeTrie.from_codes(codes)
    flat = FixedGenerator(trie, [torch.zeros((5, *children.shape)) for children in all_children(trie)])
    result = beam_search(flat, trie, 5, beams=3, keep=20)
    assert result.items_UK.tolist() == [trie.leaf_item[:20].tolist()] * 5


def test_a_beam_is_not_spent_on_a_prefix_whose_items_are_all_forbidden() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0]], dtype=np.uint16)
    trie = CodeTrie.from_codes(codes)
    generator = FixedGenerator(trie, [torch.tensor([[[9.0, 0.0]]]), torch.zeros((1, 2, 2))])
    result = beam_search(generator, trie, 1, beams=1, keep=2, forbidden_items_UH=torch.tensor([[1, 0, 1, -1]]))
    assert result.items_UK.tolist() == [[2, -1]]


def test_users_do_not_disturb_each_other() -> None:
    codes = np.unique(np.random.default_rng(0).integers(0, 6, (80, 3)), axis=0).astype(np.uint16)
    trie = CodeTrie.from_codes(codes)
    generator = FixedGenerator.random(trie, 4, seed=1)
    forbidden = torch.tensor([[-1, -1], [0, 1], [5, -1], [7, 7]])
    together = beam_search(generator, trie, 4, 3, 5, forbidden)
    for user in range(4):
        alone = FixedGenerator(trie, [table[user : user + 1] for table in generator.tables])
        result = beam_search(alone, trie, 1, 3, 5, forbidden[user : user + 1])
        assert torch.equal(result.items_UK[0], together.items_UK[user])


def test_all_items_forbidden_gives_nothing() -> None:
    trie = CodeTrie.from_codes(np.array([[0, 0], [0, 1]], dtype=np.uint16))
    result = beam_search(FixedGenerator.random(trie, 1, 0), trie, 1, 2, 2, torch.tensor([[0, 1]]))
    assert result.items_UK.tolist() == [[-1, -1]]


def test_a_catalogue_of_one_item() -> None:
    trie = CodeTrie.from_codes(np.array([[4, 2, 0]], dtype=np.uint16))
    result = beam_search(FixedGenerator.random(trie, 2, 0), trie, 2, beams=50, keep=3)
    assert result.items_UK.tolist() == [[0, -1, -1]] * 2
    assert result.log_probabilities_UK[:, 0].tolist() == [0.0, 0.0]


def test_no_users() -> None:
    trie = CodeTrie.from_codes(np.array([[0, 0], [0, 1]], dtype=np.uint16))
    result = beam_search(FixedGenerator.random(trie, 0, 0), trie, 0, beams=2, keep=3)
    assert result.items_UK.shape == (0, 3)


def test_an_impossible_item_is_not_returned() -> None:
    trie = CodeTrie.from_codes(np.array([[0], [1]], dtype=np.uint16))
    generator = FixedGenerator(trie, [torch.tensor([[[0.0, -torch.inf]]])])
    assert beam_search(generator, trie, 1, 2, 2).items_UK.tolist() == [[0, -1]]


class Counted(TorchDispatchMode):
    """Counts operations, the numbers that they make, and how often the host asks how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.made = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.operations += 1
        self.made += 0 if func.is_view else sum(each.numel() for each in tree_leaves(found) if isinstance(each, Tensor))
        self.waits += waits(func, args)
        return found


@pytest.mark.parametrize("closed", [False, True])
def test_what_masking_costs_does_not_grow_with_the_catalogue(closed: bool) -> None:
    """Of wide beams neither: the numbers made are those of users and of what is forbidden to them, times the levels."""
    users, forbidden, random = 7, 20, np.random.default_rng(0)
    every = np.array(list(np.ndindex(9, 9, 9, 9)), dtype=np.uint16)
    found: dict[tuple[int, int], tuple[int, int, int]] = {}
    for n_items in (600, len(every)):
        trie = CodeTrie.from_codes(every[random.permutation(len(every))[:n_items]])
        if closed:
            trie = trie.closing(torch.arange(n_items) % 50 == 0)
        items = torch.from_numpy(random.integers(0, n_items, (users, forbidden)))
        for beams in (10, 200):
            counts = []
            for masked in (None, items):
                # Equally good, so that as many beams are alive whatever is left out.
                with Counted() as counted:
                    beam_search(lambda _, nodes, *__: torch.zeros(*nodes.shape, 9), trie, users, beams, 10, masked)
                counts.append((counted.operations, counted.made, counted.waits))
            (operations, made, waited), (with_mask, made_with, waited_with) = counts
            found[n_items, beams] = with_mask - operations, made_with - made, waited_with - waited
            assert made_with - made < users * (60 * forbidden * trie.depth + 8 * beams * trie.depth)
    assert all(waited <= 0 for _, _, waited in found.values())
    assert found[len(every), 200][0] == found[600, 200][0]
    assert found[len(every), 200][1] <= 1.1 * found[600, 200][1]
