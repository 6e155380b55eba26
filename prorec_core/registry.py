"""Implementations by name: what a field of the configuration may choose, and the module that holds each.

Knows names and modules, and imports none of them before it is chosen. A stage's cache key follows the module of the
choice (`prorec.tasks.execution.sources`), so a change to one implementation makes nothing anew that chose another.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


class Registry:
    """The implementations of one kind. As metadata of a field (`Annotated[str, REGISTRY]`) it lets nothing else in.

    Args:
        field: the dotted field of an experiment that chooses.
        places: by name `module:attribute`, as in `prorec_core.sequential.din:DIN`.
    """

    def __init__(self, field: str, places: Mapping[str, str]) -> None:
        self.field = field
        self.places = dict(places)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def module(self, name: str) -> str:
        """The module that holds the implementation."""
        return self.places[name].partition(":")[0]

    def chosen(self, value: Any) -> list[str]:
        """The modules that a value of the field takes."""
        return [self.module(value)]

    def load(self, name: str) -> Any:
        """The implementation called `name`, a class or a function; its module is imported now.

        Raises:
            KeyError: there is none.
        """
        module, _, attribute = self.places[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "enum": list(self.places)}

    def _known(self, name: str) -> str:
        return one_of(name, self.places)


class WhereGiven(Registry):
    """What is taken wherever the field, or a property, is there or true, whichever its value is."""

    def chosen(self, value: Any) -> list[str]:
        """The modules, or none."""
        return [self.module(name) for name in self] if value else []


def one_of(name: str, known: Iterable[str]) -> str:
    """The name, where it is known; told as pydantic tells of a `Literal`.

    Raises:
        PydanticCustomError: it is not known.
    """
    if name not in (there := list(known)):
        *others, last = (f"'{each}'" for each in there)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
    return name


SOURCES = Registry(
    "data.source",
    {
        "demo": "prorec_core.data.sources:demo_shop",
        "tables": "prorec_core.data.sources:two_files",
        "recbole": "prorec_core.data.sources:two_files",
        "letter": "prorec_core.data.letter:letter",
        "sql": "prorec_core.data.sql:sql",
        **dict.fromkeys(
            ("amazon", "movielens", "hetrec", "steam", "yelp", "goodreads", "hm", "mind", "amazon_m2"),
            "prorec_core.data.published:published",
        ),
    },
)
ENCODERS = Registry(
    "text.encoder",
    {
        "sentences": "prorec_core.text.sentences:SentenceEncoder",
        "vectors": "prorec_core.text.given:GivenVectors",
        "none": "prorec_core.text.nothing:NoText",
    },
)
TEXT_BACKENDS = Registry(
    "text.backend",
    {
        "torch": "prorec_core.text.backends.torch:Torch",
        "openvino": "prorec_core.text.backends.openvino:OpenVino",
    },
)
IN_COLUMN = "items"
ITEMS_FILES = WhereGiven("text.columns", {IN_COLUMN: "prorec_core.text.items_file:ItemsFile"})
SEQUENTIAL_MODELS = Registry(
    "collaborative.model",
    {"sasrec": "prorec_core.sequential.sasrec:SASRec", "din": "prorec_core.sequential.din:DIN"},
)
QUANTIZERS = Registry(
    "quantize.method",
    {
        "residual_kmeans": "prorec_core.quantization.residual_kmeans:ResidualKMeans",
        "balanced_kmeans": "prorec_core.quantization.balanced_kmeans:BalancedKMeans",
        "hierarchical_kmeans": "prorec_core.quantization.hierarchical_kmeans:HierarchicalKMeans",
        "rq_vae": "prorec_core.quantization.rq_vae:RQVAE",
    },
)
CODE_FILES = WhereGiven("quantize.table", {"table": "prorec_core.quantization.code_files:given_codes"})
GENERATORS = Registry(
    "generator.architecture",
    {
        "timeline": "prorec_core.generation.timeline:Timeline",
        "encoder_decoder": "prorec_core.generation.encoder_decoder:EncoderDecoder",
        "causal_encoder_decoder": "prorec_core.generation.causal_encoder_decoder:CausalEncoderDecoder",
    },
)
