"""Neighbour overlap, CKA and domination on embeddings whose answer is known by construction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorec_core.metrics import domination as module
from prorec_core.metrics.domination import domination, linear_cka, neighbour_overlap, neighbours


def noise(seed, rows=400, columns=16):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def rotation(seed, size):
    return np.linalg.qr(noise(seed, size, size))[0].astype(np.float32)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 6))
def test_neighbours_equal_a_full_sort_of_cosines(seed, rows, columns):
    embeddings = noise(seed, rows, columns)
    cosines = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    cosines /= np.outer(lengths, lengths)
    np.fill_diagonal(cosines, -np.inf)
    k = min(5, rows - 1)
    found = neighbours(embeddings, np.arange(rows), k)
    assert all(len(set(row)) == k for row in found)
    best = -np.sort(-cosines, axis=1)[:, :k]
    np.testing.assert_allclose(np.take_along_axis(cosines, found, axis=1), best, atol=1e-5)


def test_overlap_does_not_depend_on_how_work_is_cut(monkeypatch):
    a, b = noise(1), noise(2)
    b[:, :8] += a[:, :8]
    whole = neighbour_overlap(a, b)
    monkeypatch.setattr(module, "SIMILARITY_CELLS", 1_000)
    assert neighbour_overlap(a, b) == whole


def test_overlap_of_a_sample_is_near_that_of_all(monkeypatch):
    a = noise(1, 3_000)
    b = a + 0.3 * noise(2, 3_000)
    whole = neighbour_overlap(a, b)
    monkeypatch.setattr(module, "_EXACT_ITEMS", 1_500)
    sampled = neighbour_overlap(a, b)
    assert sampled != whole
    assert sampled == pytest.approx(whole, abs=0.02)
    assert neighbour_overlap(a, b) == sampled, "one seed, one sample"


def test_cka_against_the_definition_by_kernels():
    a, b = noise(3), noise(4, columns=9)
    b += a[:, :9]
    centring = np.eye(400) - 1 / 400
    kernel_a, kernel_b = centring @ a @ a.T @ centring, centring @ b @ b.T @ centring
    expected = (kernel_a * kernel_b).sum() / (np.linalg.norm(kernel_a) * np.linalg.norm(kernel_b))
    assert linear_cka(a, b) == pytest.approx(expected, rel=1e-4)


def test_cka_ignores_rotation_scale_and_shift_and_is_symmetric():
    a, b = noise(5), noise(6)
    assert linear_cka(a, 7 * a @ rotation(7, 16) + 3) == pytest.approx(1, abs=1e-5)
    assert linear_cka(a, b) == pytest.approx(linear_cka(b, a))
    assert linear_cka(a, b) < 0.1
    assert linear_cka(a, np.ones_like(a)) == 0.0


def test_integrated_that_is_text_or_behaviour_or_both():
    text, behaviour = noise(8, columns=32), noise(9)
    of_text = domination(text @ rotation(10, 32), text, behaviour)["integrated"]
    assert of_text["overlap_semantic"] > 0.99
    assert of_text["text_share"] > 0.95
    assert of_text["cka_semantic"] == pytest.approx(1, abs=1e-4)
    of_behaviour = domination(3 * behaviour, text, behaviour)["integrated"]
    assert of_behaviour["overlap_collaborative"] > 0.99
    assert of_behaviour["text_share"] < 0.05
    even = domination(np.hstack([noise(8), behaviour]), noise(8), behaviour)["integrated"]
    assert even["text_share"] == pytest.approx(0.5, abs=0.05)


def test_the_larger_half_dominates_a_naive_concatenation_until_it_is_standardised():
    text, behaviour = 10 * noise(11), noise(12)
    found = domination(behaviour, text, behaviour)
    assert found["naive_concatenation"]["text_share"] > 0.9
    assert found["standardised_concatenation"]["text_share"] == pytest.approx(0.5, abs=0.05)
    assert found["sources"]["overlap"] < 0.1


def test_each_source_has_its_share_and_items_without_it_are_not_asked():
    text, picture, behaviour = noise(16), noise(17), noise(18)
    lacking = picture.copy()
    lacking[::2] = 0
    for of in (picture, lacking):
        semantic = np.hstack([text, of])
        found = domination(semantic, semantic, behaviour, sources={"text": text, "picture": of})
        rows = found["integrated"]["by_source"]
        assert list(rows) == ["text", "picture"]
        assert sum(row["share"] for row in rows.values()) <= 1
        assert rows["text"]["share"] > 0.25 < rows["picture"]["share"]
        assert "by_source" in found["naive_concatenation"]
    only = domination(picture, np.hstack([text, lacking]), behaviour, sources={"text": text, "picture": lacking})
    assert only["integrated"]["by_source"]["picture"]["overlap"] > only["integrated"]["by_source"]["text"]["overlap"]
    plain = domination(picture, text, behaviour)
    assert "by_source" not in plain["integrated"]
    nobody = domination(picture, text, behaviour, sources={"text": text, "picture": np.zeros_like(picture)})
    assert list(nobody["integrated"].pop("by_source")) == ["text"] and nobody["integrated"] == plain["integrated"]


def test_repeats_exactly_and_copes_with_few_items():
    arrays = noise(13, 6), noise(14, 6), noise(15, 6, 3)
    found = domination(*arrays)
    assert found == domination(*arrays)
    assert found["neighbours"] == 5
    assert found["integrated"]["overlap_semantic"] == 1.0, "with five neighbours among six items all are shared"
    with pytest.raises(ValueError, match="two items"):
        domination(*(array[:1] for array in arrays))


def test_of_a_large_catalogue_a_sample_tells_what_all_do(monkeypatch):
    random = np.random.default_rng(4)
    text, behaviour = (random.normal(size=(3000, 12)).astype(np.float32) for _ in range(2))
    both = text + 0.5 * behaviour
    whole = domination(both, text, behaviour)
    monkeypatch.setattr("prorec_core.metrics.domination._CKA_ITEMS", 1000)
    drawn = domination(both, text, behaviour)
    assert drawn == domination(both, text, behaviour) != whole
    for name in ("cka_semantic", "cka_collaborative"):
        assert drawn["integrated"][name] == pytest.approx(whole["integrated"][name], abs=0.03)
    assert drawn["integrated"]["overlap_semantic"] == whole["integrated"]["overlap_semantic"]
