"""Looking round: items by words, and neighbours against brute force."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.generation.catalogue import Catalogue
from prorec_core.generation.look import Look
from prorec_core.generation.recommender import Recommender
from prorec_core.generation.trie import CodeTrie
from tests.tiny_model import IDS, TITLES, tiny_recommender

from .test_beam import Codes, code_tables


def test_items_are_found_by_all_words_or_by_their_id() -> None:
    trie = CodeTrie.from_codes(np.arange(4, dtype=np.uint16)[:, None])
    titles = ["Green Tea (large)", "Red tea", "Tea", "a+b cup"]
    look = Look(trie, ["w", "x", "y", "red"], titles, np.array([1, 5, 3, 9]), None)
    assert look.find("TEA", 9) == [1, 2, 0] and look.find("tea", 2) == [1, 2]
    assert look.find(" large  green ", 9) == [0] and look.find("a+b", 9) == [3] and look.find("(", 9) == [0]
    assert look.find("red", 9) == [3, 1], "the id first, however popular the others"
    assert look.find("  ", 9) == [] and look.find("coffee", 9) == []
    assert look.in_text(0, 3) == []


@given(code_tables(), st.integers(1, 12), st.integers(0, 2**31))
@settings(max_examples=40)
def test_neighbours_share_the_most_codes_and_the_nearest_text(codes: Codes, most: int, seed: int) -> None:
    n_items = len(codes)
    random = np.random.default_rng(seed)
    counts, texts = random.integers(0, 5, n_items), random.normal(size=(n_items, 4)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    look = Look(CodeTrie.from_codes(codes), [str(n) for n in range(n_items)], [""] * n_items, counts, texts)
    item = int(random.integers(n_items))
    shared = np.cumprod(codes == codes[item], axis=1).sum(1)
    others = [other for other in range(n_items) if other != item]
    found = look.in_codes(item, most)
    assert [level for _, level in found] == sorted((int(shared[o]) for o in others if shared[o]), reverse=True)[:most]
    assert all(shared[other] == level for other, level in found) and len(dict(found)) == len(found)
    near = look.in_text(item, most)
    cosines = sorted((float(texts[other] @ texts[item]) for other in others), reverse=True)[:most]
    np.testing.assert_allclose([cosine for _, cosine in near], cosines, atol=1e-5)
    assert item not in dict(near)


def test_what_was_withdrawn_is_neither_found_nor_near() -> None:
    whole = tiny_recommender()
    gone = Catalogue.of_training(24).with_withdrawn(np.array([3, 5]), True)
    frame = pl.DataFrame({"item_id": IDS, "title": TITLES, "train_count": whole.train_counts})
    look = Recommender(whole.generator, frame, whole.scoring, 20, catalogue=gone).look
    for out in (3, 5):
        assert whole.look.find(IDS[out], 5) == [out] and look.find(IDS[out], 5) == []
    for near in (look.in_codes(4, 30), look.in_text(4, 30)):
        items = {item for item, _ in near}
        assert items and not items & {3, 4, 5}
    assert len(look.in_text(4, 30)) == 21
