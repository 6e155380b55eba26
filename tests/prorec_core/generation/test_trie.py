from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.errors import UserError
from prorec_core.generation.trie import CodeTrie

Codes = npt.NDArray[np.uint16]


@st.composite
def code_tables(draw: st.DrawFn) -> Codes:
    """Distinct tuples of 1 to 4 codes out of 1 to 5, in any order, 1 to 40 items."""
    depth, codes = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    row = st.tuples(*[st.integers(0, codes - 1)] * depth)
    rows = draw(st.lists(row, min_size=1, max_size=40, unique=True))
    return np.array(rows, dtype=np.uint16)


def items_below(codes: Codes, level: int) -> list[tuple[tuple[int, ...], list[int]]]:
    """By brute force: each prefix of a level in lexicographic order, with its items."""
    found: dict[tuple[int, ...], list[int]] = {}
    for item, row in enumerate(codes.tolist()):
        found.setdefault(tuple(row[:level]), []).append(item)
    return sorted(found.items())


@given(code_tables())
@settings(max_examples=60)
def test_every_item_is_found_by_walking_its_codes(codes: Codes) -> None:
    trie = CodeTrie.from_codes(codes)
    assert trie.n_items == len(codes) and trie.depth == codes.shape[1]
    for item, row in enumerate(codes.tolist()):
        node = 0
        for level, code in enumerate(row):
            children = trie.children_of(level, torch.tensor(node))
            assert children.shape == (trie.widest[level],)
            children = children[children >= 0]
            assert len(children) == trie.n_children[level][node]
            matching = children[trie.node_code[level + 1][children] == code]
            assert len(matching) == 1
            node = int(matching)
            assert trie.path[item, level] == node
        assert trie.leaf_item[node] == item
        assert trie.item_leaf[item] == node
    assert torch.equal(trie.codes, torch.from_numpy(codes.astype(np.int64)))


@given(code_tables(), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_children_are_those_of_a_plain_dictionary(codes: Codes, narrow: bool, data: st.DataObject) -> None:
    trie = CodeTrie.from_codes(codes)
    with pytest.MonkeyPatch.context() as patch:
        if narrow:
            patch.setattr("prorec_core.generation.trie.WHOLE_TABLES", 0)
        for level in range(trie.depth):
            prefixes = sorted({tuple(row[:level]) for row in codes.tolist()})
            longer = sorted({tuple(row[: level + 1]) for row in codes.tolist()})
            children: dict[tuple[int, ...], list[int]] = {prefix: [] for prefix in prefixes}
            for number, path in enumerate(longer):
                children[path[:-1]].append(number)
            nodes = data.draw(st.lists(st.integers(0, len(prefixes) - 1), min_size=1, max_size=5))
            expected = [children[prefixes[node]] for node in nodes]
            width = max(map(len, expected if narrow else children.values()))
            found = trie.children_of(level, torch.tensor(nodes))
            assert found.tolist() == [row + [-1] * (width - len(row)) for row in expected]


@given(code_tables())
@settings(max_examples=60)
def test_nodes_stand_in_lexicographic_order_and_cover_their_items(codes: Codes) -> None:
    trie = CodeTrie.from_codes(codes)
    for level in range(trie.depth + 1):
        expected = items_below(codes, level)
        assert trie.n_nodes[level] == len(expected)
        for node, (prefix, items) in enumerate(expected):
            leaves = slice(int(trie.first_leaf[level][node]), int(trie.last_leaf[level][node]))
            assert sorted(trie.leaf_item[leaves].tolist()) == items
            assert int(trie.node_code[level][node]) == (prefix[-1] if prefix else 0)
            assert trie.item_nodes(level)[items].tolist() == [node] * len(items)


@given(code_tables(), st.integers(0, 2**31))
@settings(max_examples=60)
def test_sums_and_means_are_those_of_the_items_below(codes: Codes, seed: int) -> None:
    trie = CodeTrie.from_codes(codes)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((2, 3, len(codes)), generator=generator)
    embeddings = torch.randn((len(codes), 4), generator=generator)
    for level in range(trie.depth + 1):
        groups = [items for _, items in items_below(codes, level)]
        sums = torch.stack([values[..., items].sum(-1) for items in groups], dim=-1)
        means = torch.stack([embeddings[items].mean(0) for items in groups])
        torch.testing.assert_close(trie.node_sums(level, values), sums)
        torch.testing.assert_close(trie.node_means(level, embeddings), means)


def test_children_of_a_small_table() -> None:
    trie = CodeTrie.from_codes(np.array([[2, 0], [0, 1], [0, 3], [2, 5], [0, 2]], dtype=np.uint16))
    assert trie.children_of(0, torch.tensor([0])).tolist() == [[0, 1]]
    assert trie.children_of(1, torch.tensor([0, 1])).tolist() == [[0, 1, 2], [3, 4, -1]]
    assert trie.children_of(1, torch.tensor([[1], [1]]), width=2).tolist() == [[[3, 4]], [[3, 4]]]
    assert trie.widest == [2, 3]
    assert trie.leaf_item.tolist() == [1, 4, 2, 0, 3]


def test_sums_can_be_trained_through() -> None:
    trie = CodeTrie.from_codes(np.array([[0, 0], [0, 1], [1, 0]], dtype=np.uint16))
    values = torch.zeros(3, requires_grad=True)
    (trie.node_sums(1, values) * torch.tensor([2.0, 5.0])).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [2.0, 2.0, 5.0]


def test_a_tensor_of_codes_gives_the_same_trie() -> None:
    codes = np.array([[1, 0], [0, 0]], dtype=np.uint16)
    assert torch.equal(CodeTrie.from_codes(torch.tensor([[1, 0], [0, 0]])).path, CodeTrie.from_codes(codes).path)


def test_moving_keeps_every_field() -> None:
    trie = CodeTrie.from_codes(np.array([[1, 0], [0, 0], [1, 2]], dtype=np.uint16))
    moved = trie.to("cpu")
    assert moved.n_nodes == trie.n_nodes and moved.widest == trie.widest
    assert torch.equal(moved.first_child[1], trie.first_child[1])
    assert torch.equal(moved.n_children[1], trie.n_children[1])


def test_two_items_with_the_same_codes_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"items 0 and 2 share the codes \(3, 1\)"):
        CodeTrie.from_codes(np.array([[3, 1], [0, 0], [3, 1]], dtype=np.uint16))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,)])
def test_an_empty_table_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="at least one item"):
        CodeTrie.from_codes(np.zeros(shape, dtype=np.uint16))


def test_no_nodes_have_no_children() -> None:
    trie = CodeTrie.from_codes(np.array([[1, 0], [0, 0]], dtype=np.uint16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prorec_core.generation.trie.WHOLE_TABLES", 0)
        assert trie.children_of(1, torch.zeros((0, 3), dtype=torch.int64)).shape == (0, 3, 1)
