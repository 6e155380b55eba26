"""What the service is asked and what it answers, with every bound. Knows no server and no model."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from prorec_core.generation.rules import Chosen

MOST_HISTORIES = 64
MOST_ITEMS = 1000
MOST_RECOMMENDED = 100
LONGEST_ID = 256
MOST_BYTES = 2**20
"""Bytes of a request's body."""
MOST_LISTED = 1_000_000
MOST_LIST_BYTES = 2**25
"""Items of a named list, and bytes of the body that brings it."""


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


class Ruled(_Strict):
    """How many items are wanted, and which may be recommended."""

    k: Annotated[int, BeforeValidator(_whole)] = Field(
        10, description="Items to recommend to each.", ge=1, le=MOST_RECOMMENDED, strict=True
    )
    keep_seen: bool | None = Field(
        None,
        description="Also recommend what is in the history, or not; by default as the model was measured.",
        strict=True,
    )
    only: Chosen | None = Field(
        None,
        description="What alone may be recommended: item ids; or `items`, a named `list` and conditions (`where`), all "
        "of which an item has to meet.",
    )
    exclude: Chosen | None = Field(
        None, description="What may not be: the same, and an item is left out that meets any of them."
    )


class Request(Ruled):
    """Histories to recommend to."""

    histories: list[History] = Field(min_length=1, max_length=MOST_HISTORIES)
    explain: bool = Field(False, description="Also say why each item is there; takes longer.", strict=True)


class Part(BaseModel):
    """What one part of the score gave an item."""

    name: str = Field(
        description="generative, dense (Stage I's score, or the distillation head's), successor (what followed the "
        "latest items), text, popularity, predecessor (what they followed), item_knn (what users have who have the "
        "history's items); own_count and own_recency where a history may come back."
    )
    contribution: float
    item_id: str | None = Field(None, description="The latest item that the part looks at.")
    title: str | None = Field(None, description="Its title.")
    value: float | None = Field(
        None, description="generative: a log-probability; text: a cosine; popularity: times in training."
    )


class Code(BaseModel):
    """One of an item's codes, and what the items have in common that share it and those before it."""

    code: int
    items: int = Field(description="How many those are.")
    words: list[str] = Field(description="The most telling words of their titles.")
    log_probability: float | None = Field(None, description="Of the code after those before it.")


class Why(BaseModel):
    """Why an item is in a list."""

    scorer: str = Field(description="What recommends: generative, dense, fused, ranked, or popular.")
    baseline: float | None = Field(
        description="The score of the history's mean candidate; the contributions add up to the item's score "
        "less this. Not there where popularity alone recommends."
    )
    parts: list[Part]
    codes: list[Code]


class Item(BaseModel):
    """One recommended item."""

    rank: int = Field(description="From 1.")
    item_id: str
    title: str
    score: float = Field(description="A log-probability up to a constant: higher is better.")
    why: Why | None = Field(None, description="Where `explain` asks for it.")


class Result(BaseModel):
    """The recommendations to one history."""

    user_id: str | None
    items: list[Item] = Field(description="Best first; fewer than `k`, or none, where the catalogue has no more.")
    unknown_items: list[str] = Field(description="Item ids of the history that the model does not know, each once.")
    missing: int = Field(
        description="How many items fewer than `k` there are, since the history holds the rest of the catalogue, or of "
        "what the rule leaves of it; with no item at all it holds the whole."
    )
    fallback: bool = Field(description="No item of the history is known: these are the most popular items.")


class Model(BaseModel):
    """The version of the registered model that answers."""

    name: str
    version: str


class AboutRule(BaseModel):
    """What `only` and `exclude` leave."""

    allowed: int = Field(description="Items of the catalogue that may be recommended.")
    unknown: int = Field(description="Of the item ids that the rule itself names, how many the model does not know.")
    unknown_items: list[str] = Field(description="The first of them.")


class Answer(BaseModel):
    """A result for each history, in the order of the request."""

    model: Model
    results: list[Result]
    rule: AboutRule | None = Field(None, description="Not there where there is neither `only` nor `exclude`.")


class ListOfItems(_Strict):
    """What a named list is put from."""

    items: list[Id] = Field(description="Item ids; one that stands twice counts once.", max_length=MOST_LISTED)


class AboutList(BaseModel):
    """A named list."""

    name: str
    items: int = Field(description="How many.")
    digest: str = Field(description="Tells its content.")
    updated: datetime
    unknown: int | None = Field(None, description="How many the model in use does not know; not there without a model.")
    unknown_items: list[str] | None = Field(None, description="The first of them.")


class WholeList(AboutList):
    """A named list with its items."""

    item_ids: list[str]


class Lists(BaseModel):
    """All named lists, by name."""

    lists: list[AboutList]
    problems: list[str] = Field(description="Why others that are kept cannot be used, a line each.")


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
        "ruled": {
            "summary": "Some items not",
            "value": {"histories": [{"history": item_ids[:1]}], "k": 3, "exclude": item_ids[1:]},
        },
    }
