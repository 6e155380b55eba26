"""Numbers that may follow the data: how a field says so, and what an experiment holds that says nothing of them.

Knows pydantic and sections; knows neither the fields nor which numbers the data ask for (`prorec_core.fitting` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

Fields = Mapping[str, tuple[str, ...]]
"""Names of fields by the name of their section."""

AUTO = "auto"
"""What such a field holds until the data are known. No stage ever reads it."""

STORED = "stored"
"""As context of a validation: a stored record is complete, and what it lacks is nobody's to fill in."""


class _ByData:
    """As metadata of a number's field, after its bounds: it may be left to the data, as `AUTO`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda value, number: AUTO if isinstance(value, str) and value == AUTO else number(value),
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema["schema"]), {"type": "string", "const": AUTO}]}


ByData = _ByData()


def by_data(of_the_shop: Any, description: str) -> Any:
    """The field of a number of `ByData`: what the built-in shop has, and its meaning."""
    return Field(of_the_shop, description=description, json_schema_extra={"default": AUTO})


def fields_by_data(root: type[BaseModel]) -> Fields:
    """The fields that may be left to the data, of the sections of a model."""
    found = {}
    for name, section in _sections(root).items():
        if fields := tuple(each for each, field in section.model_fields.items() if ByData in field.metadata):
            found[name] = fields
    return found


def of_the_shop(root: type[BaseModel], section: str, field: str) -> Any:
    """The number that the built-in shop has."""
    return _sections(root)[section].model_fields[field].default


def left_to_the_data(root: type[BaseModel], values: Any, *, built_in: bool, complete: bool) -> Any:
    """What is given of a model, with `AUTO` where it says nothing of a number that may follow the data.

    Args:
        root: the model.
        values: sections by name, as plain values or checked ones; what else it may be is left for the check.
        built_in: the data are the built-in shop, which has numbers of its own: `AUTO` stands for these.
        complete: fill nothing in.
    """
    found = dict(values)
    for name, fields in fields_by_data(root).items():
        section = found.get(name, {})
        if isinstance(section, BaseModel):
            section = {each: getattr(section, each) for each in section.model_fields_set}
        if not isinstance(section, Mapping):
            continue
        section = dict(section)
        for field in fields:
            if built_in and section.get(field) == AUTO:
                section[field] = of_the_shop(root, name, field)
            elif not (built_in or complete):
                section.setdefault(field, AUTO)
        if section or name in found:
            found[name] = section
    return found


def _sections(root: type[BaseModel]) -> dict[str, type[BaseModel]]:
    kinds = {name: field.annotation for name, field in root.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
