"""How recommendations are measured: the experiment's section of that name.

Knows names and limits of choices; knows nothing of how they are carried out.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from prorec_core.sections import RUN_ONLY, Place, Section


class EvaluateConfig(Section):
    """How recommendations are measured."""

    beams: int = Field(50, ge=10, le=5000, description="Beams of the generator.")
    list_length: int = Field(
        50, ge=10, le=1000, description="Items in every list; a target further down counts as missed."
    )
    mask_history: bool = Field(True, description="Never recommend what the user already has.")
    fusion_weights: list[Annotated[float, Field(ge=0, le=1e6)]] = Field(
        default=[0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
        min_length=1,
        max_length=1000,
        description="Weights λ of the dense score among which validation NDCG@10 chooses; [0]: nothing is fused.",
    )
    new_item_bonus: float = Field(
        0.0,
        ge=0,
        le=20,
        description="Added to the score of each new item (data.new_items), in nats: with 0.7 it counts twice.",
    )
    bootstrap_samples: int = Field(1000, ge=100, le=100_000, description="Resamples of paired comparisons.")
    lists_file: Place | None = Field(
        None,
        description="Lists that another program made, for a variant that stands on the scorer `given`: a table of "
        "split (validation, test), user_id, item_id, and rank or score; {seed} in its name stands for the seed. Its "
        "content, not its name, decides what is cached.",
        json_schema_extra=RUN_ONLY,
    )
    examples: int = Field(5, ge=0, le=100, description="Users shown in words in the report.")
