"""How good a code table is. Knows codes; knows nothing of how they came to be.

Axes: N items, L code levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prorec_core.quantization.collisions import collision_groups
from prorec_core.quantization.quantizer import Codes


def level_quality(codes_N: Codes, n_codes: int) -> dict[str, Any]:
    """How evenly one level uses its codes.

    Args:
        codes_N: the items' codes at the level.
        n_codes: codes that the level has.

    Returns:
        `codes`; `used` and `used_share`: codes that some item has; `entropy` in nats, at most log(codes), and
        `perplexity`, its exponential; `largest_group`: most items with one code, and `largest_to_mean`: the
        same over items / codes, 1 when perfectly balanced; `usage`: items with each code, `n_codes` counts.
    """
    usage = np.bincount(codes_N, minlength=n_codes)
    share = usage[usage > 0] / len(codes_N)
    entropy = max(0.0, -float((share * np.log(share)).sum()))
    return {
        "codes": n_codes,
        "used": len(share),
        "used_share": len(share) / n_codes,
        "entropy": entropy,
        "perplexity": float(np.exp(entropy)),
        "largest_group": int(usage.max()),
        "largest_to_mean": float(usage.max() * n_codes / len(codes_N)),
        "usage": usage.tolist(),
    }


def collision_quality(codes_NL: Codes) -> dict[str, Any]:
    """How many items share their tuple of codes.

    Returns:
        `items` that share theirs and their `share` of all; `tuples`: distinct ones; `largest_group`.
    """
    size = np.bincount(collision_groups(codes_NL))
    shared = int(size[size > 1].sum())
    return {
        "items": shared,
        "share": shared / len(codes_NL),
        "tuples": len(size),
        "largest_group": int(size.max()),
    }
