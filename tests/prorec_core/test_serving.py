"""What the model that MLflow serves takes for a history."""

from __future__ import annotations

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

from prorec_core.errors import UserError
from prorec_core.serving import item_ids


@pytest.mark.parametrize("given", [["a", "b c"], ("a", "b c"), np.array(["a", "b c"], object), " a, b c,"])
def test_a_list_and_text_with_commas_are_histories(given: object) -> None:
    assert item_ids(given) == ["a", "b c"]


@pytest.mark.parametrize("given", [None, float("nan"), pd.NA, pd.NaT, [], ""])
def test_a_history_that_is_missing_is_empty(given: object) -> None:
    assert item_ids(given) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "a history is 7. Give a list"),
        ({"a": 1}, "a history is {'a': 1}"),
        (["a", None], "a history holds None. Give item ids alone"),
        (["a", float("nan")], "a history holds nan"),
        ([["a"]], r"a history holds \['a'\]"),
    ],
)
def test_what_is_no_history_is_told(given: object, said: str) -> None:
    with pytest.raises(UserError, match=f"^the column 'history': {said}"):
        item_ids(given)
