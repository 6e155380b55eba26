"""What people read of metrics.json: rows, Markdown, the protocol."""

import doctest

import pytest

from prorec_core.evaluation import slices
from prorec_core.reports import tables
from prorec_core.reports.tables import protocol_line, reference_names, result_markdown, result_rows, unseen_line

PROTOCOL = {
    "items": 12101,
    "validation_users": 22363,
    "test_users": 22363,
    "history_masked": True,
    "list_length": 50,
    "beams": 50,
    "ties": "input",
    "ties_seed": 0,
    "seed": 3,
}


def measured(recall):
    return {"recall_at_10": recall, "recall_at_10_standard_error": 0.002, "ndcg_at_10": recall / 2}


METRICS = {
    "protocol": PROTOCOL,
    "test": {"popularity": measured(0.01), "other|one": measured(0.02), "fused": measured(0.1), "dense": measured(0.1)},
    "fusion_weight": 4.0,
    "comparisons": {"fused_minus_dense": {"ndcg_at_10": {"difference": 0.0004, "low": -0.001, "high": 0.002}}},
    "reference": {"best": {"recall_at_10": 0.3}},
}


@pytest.mark.parametrize("module", [tables, slices])
def test_examples_in_docstrings(module):
    import numpy as np

    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.attempted
    assert not result.failed


def test_rows_have_a_header_and_a_row_a_scorer_in_the_usual_order():
    rows = result_rows(METRICS)
    assert rows[0] == ["scorer", "Recall@10", "NDCG@10"]
    assert [row[0] for row in rows[1:]] == ["fused", "dense", "popularity", "other|one"]
    assert rows[1] == ["fused", "0.1000 ± 0.0020", "0.0500"]


def test_markdown_declares_the_protocol_and_marks_the_best():
    text = result_markdown(METRICS)
    assert text.index("history masked") < text.index("| scorer")
    assert "| fused | **0.1000** ± 0.0020 | **0.0500** |" in text
    assert "| dense | **0.1000** ± 0.0020 | **0.0500** |" in text, "equal best values are both marked"
    assert "other\\|one" in text
    assert "| fused − dense | NDCG@10 | +0.0004 | −0.0010 to +0.0020 |" in text
    assert "best reachable Recall@10 0.3000" in text
    assert "λ = 4" in text


def test_what_was_no_bound_is_not_told_of_earlier_evaluations():
    known = {name: {"recall_at_10": 0.1} for name in ("best", "behaviour_only", "text_only")}
    assert list(reference_names({"reference": known})) == ["text_only", "best"]


def test_protocol_says_masking_ties_length_users_and_seed():
    line = protocol_line(PROTOCOL | {"ties": "shuffle", "ties_seed": 9, "history_masked": False}, "validation")
    for part in ("last but one item", "history not masked", "shuffled with seed 9", "lists of 50", "22,363", "seed 3"):
        assert part in line


def test_targets_without_a_history_are_told_where_there_are_any():
    counts = {"targets": 50, "users": 20, "targets_of_new_users": 10, "new_users": 4, "targets_of_new_items": 0}
    for without, told in (
        (3, "never saw; before 3 there is no history at all"),
        (0, "of 4 users whom training never saw"),
    ):
        unseen = {"test": {**counts, "new_items": 0, "without_history": without}}
        line = unseen_line({"unseen": unseen})
        assert told in line and "0 items" not in line
    unseen = {"test": {**counts, "targets_of_new_users": 0, "targets_of_new_items": 7, "new_items": 2}}
    unseen["test"]["without_history"] = 0
    assert unseen_line({"unseen": unseen}) == (
        "7 of 50 test targets (14.0%) are of 2 items that training never saw, and count as missed wherever the "
        "catalogue lacks them"
    )
