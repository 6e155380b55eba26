"""What a ranker ranks by, by name. Knows nothing of how it is computed."""

from __future__ import annotations

FEATURES = ("generative", "dense", "successor", "text", "popularity")
"""Log-probabilities of both scores; log(1 + how often the candidate followed a latest item); cosine of its text with
the nearest of theirs; log(1 + times in training). Counts of new items are those of their nearest by text."""
OWN = ("own_count", "own_recency")
"""Two more where a history may be recommended again: log(1 + times in the user's own history); 1 / log2(1 + steps since
the user took it last), the latest item being one step away, 0 for what the user never took."""


def named_features(*, own: bool) -> tuple[str, ...]:
    """What a ranker ranks by, in the order of its weights."""
    return (*FEATURES, *OWN) if own else FEATURES
