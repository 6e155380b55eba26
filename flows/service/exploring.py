"""What the service is asked and what it answers when somebody looks round. Knows no server and no model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from prorec.flows.service.schemas import MOST_ITEMS, AboutRule, Code, Id, Item, Model, Ruled


class Exploration(Ruled):
    """One history that every score recommends to."""

    history: list[Id] = Field(description="Item ids, the oldest first; may be empty.", max_length=MOST_ITEMS)


class Named(BaseModel):
    """An item by id and title."""

    item_id: str
    title: str
    new: bool = Field(description="It was not there in training.")


class SomeItems(BaseModel):
    """Items that were looked for, the most popular first."""

    items: list[Named]


class AboutAttribute(BaseModel):
    """A column that rules may ask for."""

    name: str
    kind: str
    examples: list[Any] = Field(description="Its commonest words, or its smallest and its largest value.")


class Catalogue(BaseModel):
    """What there is."""

    model: Model
    items: int = Field(description="How many may be recommended: without those that were withdrawn.")
    new_items: int = Field(description="How many of them were not there in training.")
    recommends: str = Field(description="The score that recommends.")
    attributes: list[AboutAttribute]


class InCodes(Named):
    """A neighbour in code space."""

    shared_codes: int = Field(description="How many of its first codes are the item's.")


class InText(Named):
    """A neighbour in text."""

    cosine: float


class Neighbourhood(BaseModel):
    """An item, its codes in words and its neighbours."""

    item: Named
    times_in_training: int
    codes: list[Code]
    in_codes: list[InCodes]
    in_text: list[InText] = Field(description="None where the model carries no texts.")


class Example(BaseModel):
    """A user of the data set, without the last item."""

    user_id: str
    history: list[str]
    held_back: str = Field(description="What the user took after that.")


class Examples(BaseModel):
    """Users drawn at random; none where the data set is not at hand."""

    users: list[Example]


class ExploredItem(Item):
    """An item of a list."""

    new: bool = Field(description="It was not there in training.")


class ScoreList(BaseModel):
    """What one score would recommend."""

    scorer: str = Field(
        description="ranked, fused, generative, dense (Stage I's score, or the distillation head's) or popular."
    )
    recommends: bool = Field(description="Whether it is the one that does.")
    items: list[ExploredItem]


class Explored(BaseModel):
    """The lists of every score for one history."""

    model: Model
    history: list[Named]
    unknown_items: list[str]
    lists: list[ScoreList]
    rule: AboutRule | None = None
