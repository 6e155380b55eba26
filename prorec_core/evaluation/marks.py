"""Signs beside a variant's name in tables and plots, and what they mean. Knows what `compare_variants` gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

APART, MIXED, NOTHING_LEFT = "†", "‡", "§"
MARKS = {
    APART: "Trained on the validation items too, so that it knows each user's latest item before the test. It is held "
    "against none of those that do not.",
    MIXED: "Trained on another kind of device or in another number format than most of the others.",
    NOTHING_LEFT: "Knows what a user took, none of which may be recommended here (evaluate.mask_history): what it "
    "lists is popularity.",
}
"""What marks a variant, and what the mark means."""


def marked(name: str, about: Mapping[str, Any]) -> str:
    """A variant's name with its marks."""
    return " ".join([name, *about["marks"]])


def marks_of(found: Mapping[str, Any]) -> dict[str, str]:
    """The marks in a table as of `compare_variants`, and what they mean."""
    there = {mark for about in found["variants"].values() for mark in about["marks"]}
    return {mark: means for mark, means in MARKS.items() if mark in there}
