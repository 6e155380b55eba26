"""What the service is asked and what it answers, with every bound. Knows no server and no model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MOST_HISTORIES = 64
MOST_ITEMS = 1000
MOST_RECOMMENDED = 100
LONGEST_ID = 256
MOST_BYTES = 2**20
"""Bytes of a request's body."""


def _whole(value: object) -> object:
    """JSON knows no difference between 10 and 10.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Id = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ID)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class History(_Strict):
    """What one user did."""

    user_id: Id | None = Field(None, description="Comes back with the answer; not used otherwise.")
    history: list[Id] = Field(description="Item ids, the oldest first; may be empty.", max_length=MOST_ITEMS)


class Request(_Strict):
    """Histories to recommend to."""

    histories: list[History] = Field(min_length=1, max_length=MOST_HISTORIES)
    k: Annotated[int, BeforeValidator(_whole)] = Field(
        10, description="Items to recommend to each.", ge=1, le=MOST_RECOMMENDED, strict=True
    )
    keep_seen: bool | None = Field(
        None,
        description="Also recommend what is in the history, or not; by default as the model was measured.",
        strict=True,
    )


class Item(BaseModel):
    """One recommended item."""

    rank: int = Field(description="From 1.")
    item_id: str
    title: str
    score: float = Field(description="A log-probability up to a constant: higher is better.")


class Result(BaseModel):
    """The recommendations to one history."""

    user_id: str | None
    items: list[Item] = Field(description="Best first; fewer than `k`, or none, where the catalogue has no more.")
    unknown_items: list[str] = Field(description="Item ids of the history that the model does not know, each once.")
    missing: int = Field(
        description="How many items fewer than `k` there are, since the history holds the rest of the catalogue; with "
        "no item at all it holds the whole."
    )
    fallback: bool = Field(description="No item of the history is known: these are the most popular items.")


class Model(BaseModel):
    """The version of the registered model that answers."""

    name: str
    version: str


class Answer(BaseModel):
    """A result for each history, in the order of the request."""

    model: Model
    results: list[Result]


class Ready(BaseModel):
    """A model is loaded and warm."""

    model: Model
    problem: str | None = Field(description="Why a newer version is not in use, if there is one.")


class Alive(BaseModel):
    """The process runs."""

    status: str


class Problem(BaseModel):
    """Why there is no answer, in one line."""

    detail: str


def example(item_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Examples of a request in OpenAPI's form, with items that the model knows."""
    return {
        "one": {
            "summary": "One history",
            "value": {"histories": [{"user_id": "ann", "history": item_ids}], "k": 5},
        },
        "several": {
            "summary": "Several, with an empty one and an unknown item",
            "value": {
                "histories": [
                    {"user_id": "ann", "history": item_ids},
                    {"user_id": "new", "history": []},
                    {"user_id": "bob", "history": [*item_ids[:1], "no-such-item"]},
                ],
                "k": 3,
                "keep_seen": True,
            },
        },
    }
