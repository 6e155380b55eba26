"""What a ranker ranks by, by name. Knows nothing of how it is computed."""

from __future__ import annotations

EARLIER = ("generative", "dense", "successor", "text", "popularity")
"""Log-probabilities of both scores; log(1 + how often the candidate followed a latest item); cosine of its text with
the nearest of theirs; log(1 + times in training). New items have the counts of their nearest by text. A ranker of an
earlier version has these alone, perhaps with OWN."""
LATER = ("predecessor", "item_knn")
"""log(1 + how often a latest item followed the candidate); log(1 + 20 times the candidate's summed similarity to the
items of the history, two items being as similar as the cosine of who has them)."""
FEATURES = (*EARLIER, *LATER)
OWN = ("own_count", "own_recency")
"""Two more where a history may be recommended again: log(1 + times in the user's own history); 1 / log2(1 + steps since
the user took it last), the latest item being one step away, 0 for what the user never took."""


def named_features(*, own: bool, later: bool = True) -> tuple[str, ...]:
    """What a ranker ranks by, in the order of its weights.

    Args:
        own: with those of OWN.
        later: with those of LATER.
    """
    return (*(FEATURES if later else EARLIER), *(OWN if own else ()))
