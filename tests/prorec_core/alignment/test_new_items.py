from __future__ import annotations

import numpy as np

from prorec_core.alignment.new_items import by_similar_text


def test_the_mean_of_the_items_of_nearest_text() -> None:
    known_text = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0]], np.float32)
    known = np.array([[1, 0], [3, 0], [0, 8], [9, 9]], np.float32)
    found = by_similar_text(known, known_text, np.array([[2, 0.1], [0, 5]], np.float32), k=2)
    assert found.dtype == np.float32
    assert found.tolist() == [[2, 0], [1.5, 4]]


def test_few_known_items_and_no_new_ones() -> None:
    known, text = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)
    assert np.allclose(by_similar_text(known, text, np.zeros((1, 2), np.float32)), [[0.5, 0.5]])
    assert by_similar_text(known, text, np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_a_new_item_without_text_stands_at_the_mean() -> None:
    known_text = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0]], np.float32)
    known = np.array([[1, 0], [3, 0], [0, 8], [9, 9]], np.float32)
    assert by_similar_text(known, known_text, np.zeros((1, 2), np.float32), k=2).tolist() == [[3.25, 4.25]]
