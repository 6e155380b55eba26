"""The file that MLflow loads to serve a trained generator: histories in, recommendations out.

Knows MLflow's model interface and the recommender; the only part of prorec_core that knows MLflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from prorec_core.errors import UserError

BUNDLE = "bundle"
"""Name of the model's one MLflow artifact: the folder that `Recommender.load` reads."""

MOST_ITEMS = 1000


class GeneratorModel(PythonModel):
    """A generator as an MLflow model.

    Input: a table with the column `history`, in each row a list of item ids or a text of item ids with commas, the
    oldest item first. Parameter `k`: items to recommend. Output: a table with the columns `row` (of the input,
    from 0), `rank` (from 1), `item_id`, `title` and `score`: fewer than `k` rows of a history, or none, where the
    catalogue has no more that it lacks.
    """

    def load_context(self, context: Any) -> None:
        """Read the bundle; MLflow looks for a parameter of this name."""
        from prorec_core.generation.recommender import Recommender

        self.recommender = Recommender.load(Path(context.artifacts[BUNDLE]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Recommend for each history.

        Raises:
            UserError: the input has no column `history` or something else in it, or `k` is out of range.
        """
        table = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        if "history" not in table.columns:
            raise UserError(
                f"the input has no column 'history' but {', '.join(map(str, table.columns)) or 'none'}",
                cure="Give one row a user, with a list of item ids in the column 'history'",
            )
        k = int((params or {}).get("k", 10))
        if not 1 <= k <= MOST_ITEMS:
            raise UserError(f"k must be from 1 to {MOST_ITEMS} (got {k})")
        histories = [item_ids(value) for value in table["history"]]
        found = self.recommender.recommend(histories, k)
        rows = [
            (row, rank, each.item_id, each.title, each.score)
            for row, best in enumerate(found)
            for rank, each in enumerate(best, start=1)
        ]
        return pd.DataFrame(rows, columns=["row", "rank", "item_id", "title", "score"])


def item_ids(history: object) -> list[str]:
    """The item ids of one history, given as a list, or as text with commas between them; of a missing one none.

    Raises:
        UserError: it is neither, or an id in it is missing.
    """
    if isinstance(history, str):
        return [part.strip() for part in history.split(",") if part.strip()]
    if isinstance(history, Mapping | bytes) or not isinstance(history, Iterable) or not getattr(history, "ndim", 1):
        if history is None or pd.isna(history):
            return []
        raise UserError(
            f"a history is {history!r}",
            place="the column 'history'",
            cure="Give a list of item ids, or text with commas between them",
        )
    found = list(history)
    if odd := [item for item in found if not pd.api.types.is_scalar(item) or pd.isna(item)]:
        raise UserError(f"a history holds {odd[0]!r}", place="the column 'history'", cure="Give item ids alone")
    return [str(item) for item in found]


set_model(GeneratorModel())
